-- The same view in DuckDB, over the folders that Fluent Bit writes: run it where `dt=…/` lies, or put
-- `s3://bucket/audit/` in front (after `INSTALL httpfs; LOAD httpfs;`).
CREATE OR REPLACE VIEW audit AS
SELECT *
FROM read_json('dt=*/hh=*/*.jsonl.gz', format = 'newline_delimited', hive_partitioning = true, columns = {
  schema: 'BIGINT',
  time: 'TIMESTAMPTZ',
  decision: 'VARCHAR',
  reason: 'VARCHAR',
  mode: 'VARCHAR',
  shadow: 'STRUCT(decision VARCHAR, reason VARCHAR)',
  issuer: 'VARCHAR',
  subject: 'VARCHAR',
  user: 'VARCHAR',
  token_id: 'VARCHAR',
  groups: 'VARCHAR[]',
  tenants: 'VARCHAR[]',
  scope: 'VARCHAR',
  grant: 'VARCHAR',
  restriction: 'VARCHAR',
  owner: 'VARCHAR',
  backend: 'VARCHAR',
  method: 'VARCHAR',
  path: 'VARCHAR',
  query: 'VARCHAR',
  client_ip: 'VARCHAR',
  client_ip_source: 'VARCHAR',
  peer: 'VARCHAR',
  upgrade: 'BOOLEAN',
  policy_revision: 'VARCHAR',
  denied_tenant: 'VARCHAR',
  grafana: 'STRUCT(dashboard VARCHAR, panel VARCHAR, rule VARCHAR, org VARCHAR)',
  request_id: 'VARCHAR',
  status: 'BIGINT',
  upstream_status: 'BIGINT[]',
  bytes_sent: 'BIGINT',
  duration_ms: 'DOUBLE',
  truncated: 'VARCHAR[]'
})
QUALIFY ROW_NUMBER() OVER (PARTITION BY time, request_id) = 1;
