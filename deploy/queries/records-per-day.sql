-- How many records arrived, by day? `decided` is what increase(tenantauth_audit_records_total[1d]) counted, but for
-- what was lost on the way.
SELECT DATE(a.time) AS day, COUNT(*) AS records, COUNTIF(a.decision IS NOT NULL) AS decided
FROM audit AS a
WHERE a.time >= CURRENT_TIMESTAMP - INTERVAL 30 DAY
GROUP BY 1
ORDER BY day;
