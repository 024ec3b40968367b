-- What the queries ask: the lists as arrays, and each record once although a shipper may deliver it twice.
-- Copies are told by time and request id together, so that a query for some days reads the partitions of those days.
CREATE OR REPLACE VIEW tenantauth.audit AS
SELECT * REPLACE (
  JSON_VALUE_ARRAY(r.`groups`) AS `groups`,
  JSON_VALUE_ARRAY(r.tenants) AS tenants,
  JSON_VALUE_ARRAY(r.truncated) AS truncated,
  ARRAY(SELECT CAST(one AS INT64) FROM UNNEST(JSON_VALUE_ARRAY(r.upstream_status)) AS one) AS upstream_status
)
FROM tenantauth.audit_lines AS r
WHERE TRUE
QUALIFY ROW_NUMBER() OVER (PARTITION BY r.time, r.request_id) = 1;
