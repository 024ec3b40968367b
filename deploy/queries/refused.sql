-- What did nginx refuse before it was decided (malformed, or too large), and from where?
SELECT a.status, a.peer, COUNT(*) AS requests, MAX(a.time) AS last_time
FROM audit AS a
WHERE a.time >= CURRENT_TIMESTAMP - INTERVAL 7 DAY
  AND a.decision IS NULL
GROUP BY 1, 2
ORDER BY requests DESC, a.status;
