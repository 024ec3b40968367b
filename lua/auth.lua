-- Drop-in for an auth.lua that was loaded with `rewrite_by_lua_file /etc/nginx/auth.lua;`.
--
-- nginx.conf needs, in http {}:
--
--     lua_package_cpath "/usr/local/lib/tenantauth/?.so;;";
--
-- The policy is /etc/tenantauth/policy.yaml, or what the environment variable TENANTAUTH_POLICY names (with
-- `env TENANTAUTH_POLICY;` at the top of nginx.conf). `authorizations:` in it takes the old authorizations_table
-- as it was. `lua_shared_dict tenantauth 10m;` and `include .../http.conf;` add exact counters and the audit log.

require("tenantauth").enforce()
