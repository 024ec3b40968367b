-- Who read tenant1 in the last seven days?
SELECT a.issuer, a.subject, a.user, COUNT(*) AS requests, MIN(a.time) AS first_time, MAX(a.time) AS last_time
FROM audit AS a
CROSS JOIN UNNEST(a.tenants) AS tenant
WHERE a.time >= CURRENT_TIMESTAMP - INTERVAL 7 DAY
  AND tenant = 'tenant1'
  AND a.decision = 'allow'
  AND a.scope LIKE '%:read'
GROUP BY a.issuer, a.subject, a.user
ORDER BY requests DESC, a.issuer, a.subject;
