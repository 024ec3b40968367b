-- What tenantauth replaces: the usual script that trusts the groups of a token nobody has verified. The shadow-mode
-- test runs it in the access phase, as its users do while they try tenantauth out.
local authorizations_table = {
    group1 = { "tenant1" },
    group3 = { "tenant1", "tenant2" },
}

local function contains(list, value)
    for _, element in ipairs(list or {}) do
        if element == value then
            return true
        end
    end
    return false
end

local token = ngx.var.http_x_id_token
if not token then
    ngx.status = ngx.HTTP_FORBIDDEN
    ngx.say("403 Forbidden: cannot find JWT token")
    return ngx.exit(ngx.HTTP_FORBIDDEN)
end
local payload = token:match("^[^.]*%.([^.]*)%.") or ""
payload = payload:gsub("-", "+"):gsub("_", "/")
local claims = ngx.decode_base64(payload .. string.rep("=", -#payload % 4)) or ""
local allowed = false
for group in (claims:match('"groups":%[([^%]]*)%]') or ""):gmatch('"([^"]*)"') do
    allowed = allowed or contains(authorizations_table[group], ngx.var.http_x_scope_orgid)
end
if not allowed then
    ngx.status = ngx.HTTP_FORBIDDEN
    ngx.say("403 Forbidden: not allowed to access this tenant")
    return ngx.exit(ngx.HTTP_FORBIDDEN)
end
