-- Who was denied in the last seven days, and why?
SELECT a.issuer, a.subject, a.user, a.reason, ARRAY_TO_STRING(a.tenants, '|') AS tenants, a.scope, a.restriction,
  COUNT(*) AS denials, MAX(a.time) AS last_time
FROM audit AS a
WHERE a.time >= CURRENT_TIMESTAMP - INTERVAL 7 DAY
  AND a.decision = 'deny'
GROUP BY 1, 2, 3, 4, 5, 6, 7
ORDER BY denials DESC, a.reason, tenants;
