-- The policy enforcement point: reads what a decision needs, asks the engine once, applies the answer.

local native, import = ...

local options_of = import("options")
local headers = import("headers")
local worker = import("worker")
local denial = import("denial")
local base = require "resty.core.base"

local ngx = ngx
local ngx_log = ngx.log
local ngx_var = ngx.var
local get_method = ngx.req.get_method
local set_header = ngx.req.set_header
local clear_header = ngx.req.clear_header
local get_phase = ngx.get_phase
local is_internal = ngx.req.is_internal
local get_request = base.get_request
local bor = require("bit").bor
local match = string.match
local pcall = pcall
local native_enforce = native.enforce
local is_service = native.is_service
local holds_service_token = native.holds_service_token
local reason_of = native.reason_of
local ensure = worker.ensure
local add = worker.add
local read_headers = headers.read
local role_of = headers.role
local value_of = headers.value
local service_scheme = headers.service_scheme
local BASIC = headers.BASIC

-- Roles of headers. Token headers are TOKEN + their place in the policy's list.
local TENANT, COOKIE, UPGRADE, IP, DASHBOARD, PANEL, RULE, ORG, STRIP, TOKEN = 1, 2, 3, 4, 5, 6, 7, 8, 9, 100
-- Authorization, where it is no token header; and what tells that a person is behind a request.
local AUTHORIZATION, PERSON = 10, 11

local CONTEXT = {
    ["x-dashboard-uid"] = DASHBOARD,
    ["x-panel-id"] = PANEL,
    ["x-rule-uid"] = RULE,
    ["x-grafana-org-id"] = ORG,
}

local SPELLINGS = { "x_scope_orgid", "x-scope_orgid", "x_scope-orgid" }

-- Removed before the request goes on, beside the token headers and everything that tunes Loki or Mimir. Authorization
-- is looked at too.
local STRIPPED = {
    "authorization", "x-grafana-id", "x-ds-authorization", "x-prom-label-policy", "x-scope-userid",
    "x-query-tags", "http2-settings",
}

-- Bits of the number of flags that goes to the engine, and of the one that comes back.
local TRUNCATED, TENANT_TWICE, TOKEN_TWICE, IP_TWICE, TOKEN_IS_AUTHORIZATION = 1, 2, 4, 8, 16
local TOKEN_IS_SERVICE, TOKEN_IS_ATTENDED = 32, 64
-- How many values the flags take; the number of the plan stands above them.
local FLAGS = 128
local STALE_PLAN = -1
-- A code's lowest part is the reason; the first of the list is `granted`.
local REASONS, GRANTED = 128, 0
-- What to do with the cookies; 0 is to leave them.
local REMOVE_COOKIES, SET_COOKIES = 1, 2
-- The whole gateway only records: the request goes on as it came.
local LEAVE_ALL = 3
-- How many values the bucket of a duration takes.
local BUCKETS = 32

local _M = {}

local servers = {}
-- Those of configurations that name one backend and nothing else: nearly all.
local servers_of_backend = {}
local plan_number = -1
local token_names, needs_remote_addr = {}, false
local strip = {}
local slot_keys = {}
local warned_of_http_conf = false


-- === Options


local function backend_names(value)
    local list = value
    if type(value) == "string" then
        list = { value }
    end
    local problem = options_of.list_of_strings(list)
    if problem then
        return "must be a backend's name or a list of them"
    end
    if #list == 0 then
        return "must name at least one backend"
    end
    for _, name in ipairs(list) do
        if not native.is_backend(name) then
            return "names an unknown backend `" .. name .. "`: it must be one of mimir, loki, tempo, pyroscope"
        end
    end
end


local function path_prefix(value)
    if type(value) ~= "string" then
        return "must be a string, got " .. type(value)
    end
    if value ~= "" and value:sub(1, 1) ~= "/" then
        return "must begin with `/`"
    end
    if value:find("[%%?#\\]") or value:find("//", 1, true) or (value .. "/"):find("/%.%.?/") then
        return "must be a plain path"
    end
end


local function client_ip(value)
    if value ~= "remote_addr" then
        return "must be \"remote_addr\""
    end
end


local function header_names(value)
    local problem = options_of.list_of_strings(value)
    if problem then
        return problem
    end
    for _, name in ipairs(value) do
        local lower = name:lower()
        if lower == "cookie" or lower == "x-scope-orgid" then
            return "cannot name `" .. name .. "`"
        end
    end
end


local ENFORCE_OPTIONS = {
    backend = backend_names,
    path_prefix = path_prefix,
    client_ip = client_ip,
    forward_headers = header_names,
}


local function new_server(options)
    local backends = options.backend or { "mimir", "loki", "tempo", "pyroscope" }
    if type(backends) == "string" then
        backends = { backends }
    end
    local forwarded = {}
    for _, name in ipairs(options.forward_headers or {}) do
        forwarded[name:lower()] = true
    end
    local prefix = (options.path_prefix or ""):gsub("/+$", "")
    return {
        number = native.server(table.concat(backends, ","), prefix, options.client_ip == "remote_addr"),
        json = #backends == 1 and backends[1] == "mimir",
        prefix = prefix,
        client_is_remote_addr = options.client_ip == "remote_addr",
        forwarded = forwarded,
        plan = nil,
        plan_number = nil,
    }
end


local function joined(value)
    if type(value) == "table" then
        return table.concat(value, ",")
    end
    return value or ""
end


local function uncommon_server_of(options)
    options_of.check(3, "enforce", options, ENFORCE_OPTIONS)
    local key = joined(options.backend) .. "\0" .. (options.path_prefix or "") .. "\0" .. (options.client_ip or "")
        .. "\0" .. joined(options.forward_headers)
    local server = servers[key]
    if not server then
        server = new_server(options)
        servers[key] = server
    end
    return server
end


-- The server that these options describe. A configuration's block makes a new table for each request, so it is
-- found by what the table says; every key is looked at each time, which is what finds a mistyped one.
local function server_of(options)
    if options == nil then
        return uncommon_server_of({})
    end
    if type(options) == "table" then
        local backend = options.backend
        local server = servers_of_backend[backend]
        if server then
            local others = false
            for name in pairs(options) do
                if name ~= "backend" then
                    others = true
                end
            end
            if not others then
                return server
            end
        elseif type(backend) == "string" and next(options) == "backend" and next(options, "backend") == nil then
            server = uncommon_server_of(options)
            servers_of_backend[backend] = server
            return server
        end
    end
    return uncommon_server_of(options)
end


-- === The headers of a request


local function make_plan(server)
    local number, ip_header_name, tokens
    number, needs_remote_addr, ip_header_name, tokens = native.header_plan()
    token_names = {}
    for name in tokens:gmatch("[^,]+") do
        token_names[#token_names + 1] = name
    end
    plan_number = number
    local roles = {
        ["x-scope-orgid"] = TENANT, ["cookie"] = COOKIE, ["upgrade"] = UPGRADE, ["x-grafana-user"] = PERSON,
    }
    for name, role in pairs(CONTEXT) do
        roles[name] = role
    end
    -- With `underscores_in_headers on` these reach nginx's $http_x_scope_orgid, which http.conf reads; no backend
    -- knows them.
    for _, name in ipairs(SPELLINGS) do
        roles[name] = STRIP
    end
    for _, name in ipairs(STRIPPED) do
        if not server.forwarded[name] then
            roles[name] = STRIP
        end
    end
    roles["authorization"] = AUTHORIZATION
    if ip_header_name then
        roles[ip_header_name] = IP
    end
    for place, name in ipairs(token_names) do
        roles[name] = TOKEN + place
    end
    server.plan = headers.plan(roles)
    server.plan_number = number
    return server.plan
end


-- === Applying a decision


local function assign_record(record)
    ngx_var.tenantauth_record = record
end


local function assign_denied_tenants(tenants)
    ngx_var.tenantauth_denied_tenants = tenants
end


-- Hands the record to nginx. False where http.conf, which declares the variables, is not included.
local function set_record(record)
    if pcall(assign_record, record) then
        return true
    end
    if not warned_of_http_conf then
        warned_of_http_conf = true
        if native.claim_warning() then
            ngx_log(ngx.WARN, "tenantauth: http.conf is not included: no audit record is written")
        end
    end
    return false
end


-- The tenants of a request that goes no further; of an allowed one they are in its header.
local function set_denied_tenants(tenants)
    if tenants then
        pcall(assign_denied_tenants, tenants)
    end
end


-- One counter for everything that is to be counted about a request; what it adds up to is worked out when somebody
-- asks for metrics. The sum of durations is the one thing that needs another.
local function count(code, nanoseconds, bucket, audited)
    local slot = (code * BUCKETS + bucket) * 2 + (audited and 1 or 0)
    local key = slot_keys[slot]
    if not key then
        key = string.format("tally:%.0f", slot)
        slot_keys[slot] = key
    end
    add(key, 1)
    add("duration:sum", nanoseconds)
end


-- Whether the client expects Prometheus' JSON errors.
local function wants_json(server)
    if server.json then
        return true
    end
    local path = ngx_var.request_uri or ""
    local prefix = server.prefix
    if prefix ~= "" and path:sub(1, #prefix) == prefix then
        path = path:sub(#prefix + 1)
    end
    return path:sub(1, 12) == "/prometheus/" or path:sub(1, 8) == "/api/v1/"
end


local function deny(server, reason)
    local status, sentence = native.denial_of(reason)
    ngx_log(ngx.INFO, "tenantauth: denied: ", reason, "; request ", ngx_var.request_id or "")
    return denial.send(status, reason, sentence, wants_json(server))
end


-- A request that reaches `enforce` in a way in which it cannot be decided.
local function deny_internal(server, why)
    ngx_log(ngx.ERR, "tenantauth: ", why, ", location of `", ngx_var.uri or "", "`")
    local code, record, passes = native.internal_error(server.number, get_method(), ngx_var.request_uri or "",
        ngx_var.realip_remote_addr or ngx_var.remote_addr or "")
    -- A subrequest shares the variables of its main request, whose record stays.
    local audited = not ngx.is_subrequest and set_record(record)
    count(code, 0, 0, audited)
    if not passes then
        return deny(server, "internal_error")
    end
end


-- What was seen of the token headers of the request being read. One table for all requests: nothing yields
-- between its filling and its use.
local token_values = {}


-- Reads the headers and asks the engine. Returns the engine's answer (a code, the time it took, the bucket of that
-- time, the audit record, the tenants where they are to be set, what to do with the cookies and what remains of
-- them), and how many names stand in `strip`.
local function ask(server, r)
    local plan = server.plan
    if plan == nil or server.plan_number ~= plan_number then
        plan = make_plan(server)
    end
    local tokens = #token_names
    for place = 1, tokens do
        token_values[place] = false
    end
    local flags = 0
    local tenant, cookies, ip, upgrade, dashboard, panel, rule, org
    -- The value of Authorization where it may be a service token, its scheme, and how many lines there are.
    local authorization, scheme
    local authorizations, person = 0, false
    local stripped = 0
    local forwarded = server.forwarded
    local elements, total = read_headers(r)
    if elements == nil then
        flags, total = TRUNCATED, 0
    end
    for index = 0, total - 1 do
        local role, name = role_of(plan, elements, index)
        if role == nil then
            if name and not forwarded[name] then
                stripped = stripped + 1
                strip[stripped] = name
            end
        elseif role == STRIP then
            stripped = stripped + 1
            strip[stripped] = name
        elseif role > TOKEN then
            local place = role - TOKEN
            if token_values[place] then
                flags = bor(flags, TOKEN_TWICE)
            end
            token_values[place] = value_of(elements, index)
            if name == "authorization" then
                authorizations = authorizations + 1
                local found = service_scheme(elements, index)
                if found then
                    authorization, scheme = token_values[place], found
                end
            end
            if not forwarded[name] or holds_service_token(token_values[place]) then
                stripped = stripped + 1
                strip[stripped] = name
            end
        elseif role == AUTHORIZATION then
            authorizations = authorizations + 1
            local found = service_scheme(elements, index)
            if found then
                authorization, scheme = value_of(elements, index), found
            end
            -- Too long for an account, or beside a user's token: no backend sees it all the same.
            if not forwarded[name] or holds_service_token(value_of(elements, index)) then
                stripped = stripped + 1
                strip[stripped] = name
            end
        elseif role == PERSON then
            person = true
        else
            local value = value_of(elements, index)
            if role == TENANT then
                if tenant then
                    flags = bor(flags, TENANT_TWICE)
                end
                tenant = value
            elseif role == COOKIE then
                cookies = cookies and cookies .. "\n" .. value or value
            elseif role == IP then
                if ip then
                    flags = bor(flags, IP_TWICE)
                end
                ip = value
            elseif role == UPGRADE then
                -- A second line makes it something that no route knows.
                upgrade = upgrade and upgrade .. "," .. value or value
            elseif role == DASHBOARD then
                dashboard = dashboard or value
            elseif role == PANEL then
                panel = panel or value
            elseif role == RULE then
                rule = rule or value
            else
                org = org or value
            end
        end
    end
    local token
    -- A token header that is not the Authorization of a service token.
    local others = false
    for place = 1, tokens do
        local value = token_values[place]
        if value then
            local is_authorization = token_names[place] == "authorization"
            if not token then
                token = value
                if is_authorization then
                    flags = bor(flags, TOKEN_IS_AUTHORIZATION)
                end
            end
            others = others or not is_authorization
        end
    end
    -- `Basic` beside a token header may be anything: Grafana can be told to send its own. Alone it is for the engine
    -- to say what it is.
    if authorization and (scheme ~= BASIC or not others or is_service(authorization)) then
        token = authorization
        flags = bor(flags, TOKEN_IS_SERVICE)
        if others or person then
            flags = bor(flags, TOKEN_IS_ATTENDED)
        end
        if authorizations > 1 then
            flags = bor(flags, TOKEN_TWICE)
        end
        -- It is ours: no backend ever sees it, whatever is forwarded.
        if forwarded["authorization"] then
            stripped = stripped + 1
            strip[stripped] = "authorization"
        end
    end
    local remote_addr = (needs_remote_addr or server.client_is_remote_addr) and ngx_var.remote_addr or nil
    -- The realip module, where it is compiled in, knows who really connected.
    local peer = ngx_var.realip_remote_addr or ngx_var.remote_addr
    local code, nanoseconds, bucket, record, tenants, cookies_to, rest = native_enforce(server.number,
        plan_number * FLAGS + flags, get_method(), ngx_var.request_uri, ngx_var.uri, tenant, token, cookies,
        ip, remote_addr, peer, upgrade, dashboard, panel, rule, org)
    return code, nanoseconds, bucket, record, tenants, cookies_to, rest, stripped
end


-- Lets an allowed request go on as it was authorised: canonical tenants, no credentials.
local function apply(tenants, cookies_to, rest, stripped)
    if cookies_to == LEAVE_ALL then
        return
    end
    if tenants then
        set_header("X-Scope-OrgID", tenants)
    end
    if cookies_to == REMOVE_COOKIES then
        clear_header("Cookie")
    elseif cookies_to == SET_COOKIES then
        set_header("Cookie", rest)
    end
    for i = 1, stripped do
        clear_header(strip[i])
    end
end


-- An internal redirect of a request that was decided, or a second `enforce`: denied, with the first reason if it
-- had been denied. Its record stays as it is.
local function refuse_again(server, record)
    -- While the whole gateway only records, the request goes on this time as well.
    if match(record, '^[^,]*,"decision":"allow","reason":"granted","mode":"shadow"') then
        return
    end
    local reason = match(record, '^[^,]*,"decision":"deny","reason":"([a-z_]+)"')
    if reason then
        return deny(server, reason)
    end
    ngx_log(ngx.ERR, "tenantauth: this request was allowed already and came again, as `", ngx_var.uri,
        "`: give the location `rewrite_by_lua_block { }`")
    return deny(server, "internal_error")
end


-- Decides this request: returns on allow, ends it with a denial otherwise.
function _M.enforce(options)
    local server = server_of(options)
    local phase = get_phase()
    if phase ~= "rewrite" and phase ~= "access" then
        options_of.fail(1, "enforce", "must be called in the rewrite or access phase, not in " .. phase)
    end
    ensure()
    if ngx.is_subrequest then
        return deny_internal(server, "a subrequest cannot be decided")
    end
    -- Looked at only here: otherwise this is the first time that the request comes by. (In the access phase it may
    -- have been decided in the rewrite phase.)
    if phase == "access" or is_internal() then
        local earlier = ngx_var.tenantauth_record
        if earlier and not match(earlier, '^[^,]*,"decision":null') then
            return refuse_again(server, earlier)
        end
    end
    local ok, code, nanoseconds, bucket, record, tenants, cookies_to, rest, stripped =
        pcall(ask, server, get_request())
    if ok and code == STALE_PLAN then
        -- The policy changed since the headers were planned for.
        plan_number = -1
        ok, code, nanoseconds, bucket, record, tenants, cookies_to, rest, stripped =
            pcall(ask, server, get_request())
    end
    if not ok or code == STALE_PLAN then
        return deny_internal(server, "the decision failed: " .. tostring(code))
    end
    local allowed = code % REASONS == GRANTED
    count(code, nanoseconds, bucket, set_record(record))
    if not allowed then
        set_denied_tenants(tenants)
        return deny(server, reason_of(code % REASONS))
    end
    return apply(tenants, cookies_to, rest, stripped)
end


return _M
