-- What tenantauth replaces, as gateways have it: reads the token with lua-resty-jwt, and compares its groups with the
-- tenant. Where `bench_public_key` is set it verifies the token first, which auth.lua never did.
local jwt = require "resty.jwt"
local validators = require "resty.jwt-validators"

local authorizations_table = {
    ["group1"] = { "tenant1" },
    ["group3"] = { "tenant1", "tenant2" },
    ["oncall"] = { "tenant1" },
    ["team-a"] = { "team-a" },
}

local function deny(text)
    ngx.status = ngx.HTTP_FORBIDDEN
    ngx.say(text)
    return ngx.exit(ngx.HTTP_FORBIDDEN)
end

local token = ngx.var.http_x_id_token
if not token then
    return deny("403 Forbidden: cannot find JWT token")
end

local parsed
if bench_public_key then
    parsed = jwt:verify(bench_public_key, token, {
        iss = validators.equals("https://login.example.test/v2.0"),
        aud = validators.equals("grafana"),
        exp = validators.is_not_expired(),
        nbf = validators.opt_is_not_before(),
    })
    if not parsed.verified then
        return deny("403 Forbidden: " .. tostring(parsed.reason))
    end
else
    parsed = jwt:load_jwt(token)
end

local tenant = ngx.var.http_x_scope_orgid
local payload = parsed.payload
if type(payload) == "table" and type(payload.groups) == "table" then
    for _, group in ipairs(payload.groups) do
        for _, allowed in ipairs(authorizations_table[group] or {}) do
            if allowed == tenant then
                return
            end
        end
    end
end
return deny("403 Forbidden: not allowed to access this tenant")
