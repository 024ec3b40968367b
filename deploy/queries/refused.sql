-- What did nginx refuse before it was decided (malformed, or too large)? From where, its error log says at `info`.
SELECT a.status, COUNT(*) AS requests, MAX(a.time) AS last_time
FROM audit AS a
WHERE a.time >= CURRENT_TIMESTAMP - INTERVAL 7 DAY
  AND a.decision IS NULL
GROUP BY 1
ORDER BY requests DESC, a.status;
