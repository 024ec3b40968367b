-- What tenantauth replaces, as gateways have it: reads the token with lua-resty-jwt, compares its groups with the
-- tenant, and the address in the cookie with the networks that may read logs. Where `bench_public_key` and
-- `bench_cookie_mac` are set it verifies token and cookie first, which auth.lua never did.
local jwt = require "resty.jwt"
local validators = require "resty.jwt-validators"
local base64 = require "ngx.base64"
local bit = require "bit"

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

local function is_granted(groups, tenant)
    for _, group in ipairs(groups) do
        for _, allowed in ipairs(authorizations_table[group] or {}) do
            if allowed == tenant then
                return true
            end
        end
    end
    return false
end

-- The address in `v1.<address>.<expiry>.<key id>.<MAC>`; nil for none that counts.
local function client_address()
    local parts = ngx.re.match(ngx.var.cookie_client_ip or "", [[^(v1\.([\w-]+)\.(\d+)\.k1)\.([\w-]+)$]], "jo")
    if not parts then
        return nil
    end
    if bench_cookie_mac then
        bench_cookie_mac:reset()
        if bench_cookie_mac:final("Client_Ip=" .. parts[1]) ~= base64.decode_base64url(parts[4])
            or tonumber(parts[3]) <= ngx.time() then
            return nil
        end
    end
    return base64.decode_base64url(parts[2])
end

-- Of IPv4 only, which those who ask here have: 203.0.113.0/24 and 198.51.100.7.
local function is_near(address)
    local bytes = address and ngx.re.match(address, [[^(\d+)\.(\d+)\.(\d+)\.(\d+)$]], "jo")
    if not bytes then
        return false
    end
    local number = bit.bor(bit.lshift(bytes[1], 24), bit.lshift(bytes[2], 16), bit.lshift(bytes[3], 8), bytes[4])
    return bit.band(number, 0xffffff00) == bit.tobit(0xcb007100) or number == bit.tobit(0xc6336407)
end

local function is_exempt(groups)
    for _, group in ipairs(groups) do
        if group == "sre" then
            return true
        end
    end
    return false
end

local payload = parsed.payload
local groups = type(payload) == "table" and type(payload.groups) == "table" and payload.groups or {}
if not is_granted(groups, ngx.var.http_x_scope_orgid) then
    return deny("403 Forbidden: not allowed to access this tenant")
end
if not is_near(client_address()) and not is_exempt(groups) then
    return deny("403 Forbidden: ip not allowed")
end
