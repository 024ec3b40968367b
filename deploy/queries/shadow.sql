-- Whom would a restriction in shadow mode have denied in the last seven days?
SELECT a.restriction, a.shadow.reason AS reason, a.subject, a.user, a.client_ip,
  ARRAY_TO_STRING(a.tenants, '|') AS tenants, COUNT(*) AS requests
FROM audit AS a
WHERE a.time >= CURRENT_TIMESTAMP - INTERVAL 7 DAY
  AND a.shadow.decision = 'deny'
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY requests DESC, a.restriction, a.subject;
