-- Which group used which tenant for the first time in the last seven days, and who was it? Looks at everything that is
-- kept. A group is one that its user holds; the grant says which rule allowed it.
SELECT member AS group_name, tenant, MIN(a.time) AS first_time, MIN_BY(a.user, a.time) AS first_user,
  MIN_BY(a.grant, a.time) AS first_grant
FROM audit AS a
CROSS JOIN UNNEST(a.groups) AS member
CROSS JOIN UNNEST(a.tenants) AS tenant
WHERE a.decision = 'allow'
GROUP BY 1, 2
HAVING MIN(a.time) >= CURRENT_TIMESTAMP - INTERVAL 7 DAY
ORDER BY first_time, group_name, tenant;
