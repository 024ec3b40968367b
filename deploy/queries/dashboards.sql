-- Which dashboard asks for which tenant, for how many people, and how often in vain? (Grafana says which dashboard it
-- is; nobody proves it.)
SELECT a.grafana.dashboard AS dashboard, tenant, a.scope, COUNT(*) AS requests,
  COUNT(DISTINCT a.subject) AS people, COUNTIF(a.decision = 'deny') AS denied
FROM audit AS a
CROSS JOIN UNNEST(a.tenants) AS tenant
WHERE a.time >= CURRENT_TIMESTAMP - INTERVAL 7 DAY
  AND a.grafana.dashboard IS NOT NULL
GROUP BY 1, 2, 3
ORDER BY requests DESC, dashboard, tenant;
