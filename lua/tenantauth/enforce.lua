-- The policy enforcement point: reads what a decision needs, asks the engine once, applies the answer.

local native, import = ...

local options_of = import("options")
local request = import("request")
local hop_by_hop = import("hop_by_hop")
local worker = import("worker")
local denial = import("denial")
local base = require "resty.core.base"

local ngx = ngx
local ngx_log = ngx.log
local ngx_var = ngx.var
local get_method = ngx.req.get_method
local set_header = ngx.req.set_header
local get_phase = ngx.get_phase
local is_internal = ngx.req.is_internal
local get_request = base.get_request
local match = string.match
local pcall = pcall
local reason_of = native.reason_of
local ensure = worker.ensure
local add = worker.add
local decide = request.decide
local answer = request.answer
local remove_headers = request.remove_headers
local remove_cookies = request.remove_cookies
local text_of = request.string
local set_variable = request.set_variable

-- How many values the reason takes, which is a code's lowest part.
local REASONS, GRANTED = native.REASONS, native.GRANTED
-- Instead of a code: come again with $remote_addr, or with what an `Upgrade` header can be. What is less: come again
-- when something was taken out.
local NEEDS_REMOTE_ADDR, NEEDS_UPGRADABLE = native.NEEDS_REMOTE_ADDR, native.NEEDS_UPGRADABLE
-- What to do with the cookies; of the last all headers: the whole gateway only records.
local REMOVE_COOKIES, SET_COOKIES, LEAVE_ALL = native.REMOVE_COOKIES, native.SET_COOKIES, native.LEAVE_ALL
-- How many values the bucket of a duration takes.
local BUCKETS = native.BUCKETS
local TALLY_KEY, SUM_KEY = native.TALLY_KEY, native.SUM_KEY

local _M = {}

-- How many functions of ours a mistake is found beneath, at the least: `enforce`, `pcall`, `run`.
local LEVEL = 3

local servers = {}
-- Those of configurations that name one backend and nothing else: nearly all.
local servers_of_backend = {}
local needs_remote_addr = false
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
        if not name:find("^[%w_-]+$") then
            return "names `" .. name .. "`, which is no header's name"
        end
        if lower == "cookie" or lower == "x-scope-orgid" or lower:find("x-tenantauth-", 1, true) == 1 then
            return "cannot name `" .. name .. "`"
        end
    end
end


local function again(value)
    if value ~= true then
        return "must be `true`"
    end
end


local ENFORCE_OPTIONS = {
    backend = backend_names,
    path_prefix = path_prefix,
    client_ip = client_ip,
    forward_headers = header_names,
    again = again,
}

-- No engine knows this number: what it is asked to decide with it is an internal error.
local UNKNOWN = 0xffffffff
-- In place of the server that options would describe, where they are none.
local NONE = { number = UNKNOWN, json = false, prefix = "" }


local function new_server(options)
    local backends = options.backend or { "mimir", "loki", "tempo", "pyroscope" }
    if type(backends) == "string" then
        backends = { backends }
    end
    local json = #backends == 1 and backends[1] == "mimir"
    backends = table.concat(backends, ",")
    if options.again then
        return { number = UNKNOWN, json = json, prefix = "", again = true, backends = backends }
    end
    local prefix = (options.path_prefix or ""):gsub("/+$", "")
    return {
        number = native.server(backends, prefix, options.client_ip == "remote_addr",
            table.concat(options.forward_headers or {}, ",")),
        json = json,
        prefix = prefix,
    }
end


local function joined(value)
    if type(value) == "table" then
        return table.concat(value, ",")
    end
    return value or ""
end


local function uncommon_server_of(options)
    options_of.check(LEVEL + 2, "enforce", options, ENFORCE_OPTIONS)
    if options.again and (options.path_prefix or options.client_ip or options.forward_headers) then
        options_of.fail(LEVEL + 2, "enforce", "option `again` excludes every other one but `backend`")
    end
    local key = joined(options.backend) .. "\0" .. (options.path_prefix or "") .. "\0" .. (options.client_ip or "")
        .. "\0" .. joined(options.forward_headers) .. "\0" .. tostring(options.again)
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
        options = {}
    end
    if type(options) == "table" and next(options) == "backend" and next(options, "backend") == nil then
        local backend = options.backend
        local server = servers_of_backend[backend]
        if not server then
            server = uncommon_server_of(options)
            if type(backend) == "string" then
                servers_of_backend[backend] = server
            end
        end
        return server
    end
    -- In two steps, so that a mistake is told at the line of the configuration whichever way it was found.
    local server = uncommon_server_of(options)
    return server
end


-- === Applying a decision


local function warn_of_http_conf()
    if not warned_of_http_conf then
        warned_of_http_conf = true
        if native.claim_warning() then
            ngx_log(ngx.WARN, "tenantauth: http.conf is not included: no audit record is written")
        end
    end
end


-- Hands the record of the answer to nginx. False where http.conf, which declares the variables, is not included.
local function set_record(r)
    if set_variable(r, "tenantauth_record", answer.record) then
        return true
    end
    warn_of_http_conf()
    return false
end


-- The tenants of a request whose header does not hold them as they were judged.
local function set_other_tenants(r)
    if text_of(answer.tenants) then
        set_variable(r, "tenantauth_denied_tenants", answer.tenants)
    end
end


local function assign_record(record)
    ngx_var.tenantauth_record = record
end


-- One counter for everything that is to be counted about a request; what it adds up to is worked out when somebody
-- asks for metrics. The sum of durations is the one thing that needs another.
local function count(code, nanoseconds, bucket, audited)
    local slot = (code * BUCKETS + bucket) * 2 + (audited and 1 or 0)
    local key = slot_keys[slot]
    if not key then
        key = TALLY_KEY .. string.format("%.0f", slot)
        slot_keys[slot] = key
    end
    add(key, 1)
    add(SUM_KEY, nanoseconds)
end


-- Whether the client expects Prometheus' JSON errors.
local function wants_json(server)
    if server.json then
        return true
    end
    local path = ngx_var.request_uri or ""
    local prefix = server.prefix
    if prefix ~= "" and path:sub(1, #prefix + 1) == prefix .. "/" then
        path = path:sub(#prefix + 1)
    end
    return path:sub(1, 12) == "/prometheus/" or path:sub(1, 8) == "/api/v1/"
end


-- Ends the request. `record`: that of the decision, where there is one.
local function deny(server, reason, record)
    local status, sentence = native.denial_of(reason, record)
    ngx_log(ngx.INFO, "tenantauth: denied: ", reason, "; request ", ngx_var.request_id or "")
    return denial.send(status, reason, sentence, wants_json(server))
end


-- The record of this request's first decision; nil where there was none, or no http.conf.
local function earlier_record()
    local record = ngx_var.tenantauth_record
    if record and not match(record, '^[^,]*,"decision":null') then
        return record
    end
end


-- Its path for the error log. Decoded, what a client wrote may hold line feeds.
local function shown_uri()
    return (ngx_var.uri or ""):gsub("%c", "?")
end


-- A request that reaches `enforce` in a way in which it cannot be decided. Returns how it is denied, if it is.
local function refuse(server, why)
    ngx_log(ngx.ERR, "tenantauth: ", why, ", location of `", shown_uri(), "`")
    local code, record, passes = native.internal_error(server.number, get_method(), ngx_var.request_uri or "",
        ngx_var.realip_remote_addr or ngx_var.remote_addr or "")
    -- A first decision keeps its record, and so does the main request of a subrequest, which shares its variables.
    local audited = false
    if not ngx.is_subrequest and not earlier_record() then
        audited = pcall(assign_record, record)
        if not audited then
            warn_of_http_conf()
        end
    end
    count(code, 0, 0, audited)
    if not passes then
        return server, "internal_error"
    end
end


-- Has nginx take out of the request what the engine says by this code. Returns whether an `Upgrade` is gone of which
-- nginx may have a copy.
local function rewrite(r, code)
    local connection, names_others, declines_upgrade = native.rewrite_of(code)
    if connection and not hop_by_hop.set_connection(r, connection) and names_others then
        error("$http_connection was evaluated before `enforce` and keeps names that a proxy behind would act upon", 0)
    end
    return declines_upgrade and not hop_by_hop.decline_upgrade(r)
end


-- Does what the engine wants done before it decides, and asks it again.
local function ask_again(r, number, code)
    local nanoseconds, bucket
    local upgradable = 0
    if code == NEEDS_REMOTE_ADDR then
        -- From now on it is given at once.
        needs_remote_addr = true
        code, nanoseconds, bucket = decide(r, number, true, upgradable)
    end
    if code == NEEDS_UPGRADABLE then
        upgradable = hop_by_hop.can_upgrade() and native.UPGRADABLE or native.NOT_UPGRADABLE
        code, nanoseconds, bucket = decide(r, number, needs_remote_addr, upgradable)
    end
    if code < NEEDS_UPGRADABLE then
        if rewrite(r, code) then
            upgradable = native.UPGRADE_IS_KEPT
        end
        code, nanoseconds, bucket = decide(r, number, needs_remote_addr, upgradable)
    end
    return code, nanoseconds, bucket
end


-- Asks the engine. Returns its code, the time it took and the bucket of that time; the rest stands in `answer`.
local function ask(r, number)
    local code, nanoseconds, bucket = decide(r, number, needs_remote_addr, 0)
    if code < 0 then
        return ask_again(r, number, code)
    end
    return code, nanoseconds, bucket
end


-- Sets the tenants in canonical form. Where nginx has evaluated the header before (`if`, `set`, `limit_req_zone`), it keeps
-- that copy for its own variable, as it came.
local function set_tenants(r, tenants)
    set_header("X-Scope-OrgID", tenants)
    set_variable(r, "tenantauth_denied_tenants", answer.tenants)
end


-- Lets an allowed request go on as it was authorised: canonical tenants, no credentials.
local function apply(r)
    local cookies_to = answer.cookies_to
    if cookies_to == LEAVE_ALL then
        return set_other_tenants(r)
    end
    remove_headers(r)
    local tenants = text_of(answer.tenants)
    if tenants then
        set_tenants(r, tenants)
    end
    if cookies_to == REMOVE_COOKIES then
        remove_cookies(r)
    elseif cookies_to == SET_COOKIES then
        set_header("Cookie", text_of(answer.cookies))
    end
end


-- While the whole gateway only records, the request goes on every time.
local function is_watched(record)
    return match(record, '^[^,]*,"decision":"allow","reason":"granted","mode":"shadow"') ~= nil
end


-- The reason of the first decision, where that was a denial.
local function first_reason(record)
    return match(record, '^[^,]*,"decision":"deny","reason":"([a-z_]+)"')
end


-- An internal redirect of a request that was decided, or a second `enforce`: denied, with the first reason if it
-- had been denied. Its record stays as it is.
local function refuse_decided(server, record)
    if is_watched(record) then
        return
    end
    local reason = first_reason(record)
    if reason then
        return server, reason, record
    end
    ngx_log(ngx.ERR, "tenantauth: this request was allowed already and came again, as `", shown_uri(),
        "`: its location needs `enforce { again = true }` if it proxies, ",
        "`rewrite_by_lua_block { }` if its pages are static")
    return server, "internal_error"
end


-- `again`: lets a request go on that was allowed, if what goes upstream now still is what was allowed.
local function pass_again(server, record)
    if not record then
        return refuse(server, "a request that was never decided cannot pass `again`")
    end
    if is_watched(record) then
        return
    end
    if native.is_allowed_again(server.backends, record, get_method(), ngx_var.request_uri or "", ngx_var.uri or "") then
        return
    end
    local reason = first_reason(record)
    if reason then
        return server, reason, record
    end
    ngx_log(ngx.ERR, "tenantauth: this request was allowed as another one and came again, as `", get_method(), " ",
        shown_uri(), "`: fall back to a named location, which keeps method and path")
    return server, "internal_error"
end


-- Statuses with which nginx refuses what it has not read, or not understood.
local UNREADABLE = {
    [400] = true, [408] = true, [413] = true, [414] = true, [421] = true, [431] = true,
    [494] = true, [495] = true, [496] = true, [497] = true, [501] = true, [505] = true,
}


-- Whether all headers of an internally redirected request were read. nginx may have refused it before, and an
-- error_page brought it here with the headers that precede the one it did not like.
local function is_whole()
    -- 0 where the error_page says `=`, and after a `rewrite`.
    if UNREADABLE[ngx.status] then
        return false
    end
    -- Unset until the headers are read.
    if ngx_var.sent_http_connection == "keep-alive" then
        return true
    end
    -- The client, or a setting, closes the connection. HTTP/2 has a request line once all headers are there.
    local version = ngx.req.http_version()
    if version == 2 then
        return (ngx_var.request or "") ~= ""
    end
    -- Nothing shows it of HTTP/3. HTTP/0.9 has no headers.
    if not version or version < 1 or version > 1.1 or (ngx_var.request or "") == "" then
        return version == 0.9
    end
    local ok, text = pcall(ngx.req.raw_header)
    return ok and text:sub(-4) == "\r\n\r\n"
end


-- Decides this request. Returns nothing where it goes on, otherwise the server, the reason of its denial and the record
-- of it, if any. Whatever may raise an error is in here.
local function run(options)
    local server = server_of(options)
    local phase = get_phase()
    if phase ~= "rewrite" and phase ~= "access" then
        options_of.fail(LEVEL, "enforce", "must be called in the rewrite or access phase, not in " .. phase)
    end
    ensure()
    if ngx.is_subrequest then
        return refuse(server, "a subrequest cannot be decided")
    end
    -- Looked at only here: otherwise this is the first time that the request comes by. (In the access phase it may
    -- have been decided in the rewrite phase.)
    local internal = is_internal()
    if internal or phase == "access" then
        local earlier = earlier_record()
        if server.again then
            return pass_again(server, earlier)
        end
        if earlier then
            return refuse_decided(server, earlier)
        end
        if internal and not is_whole() then
            return refuse(server, "nginx refused this request before it had read it")
        end
    end
    local r = get_request()
    local code, nanoseconds, bucket = ask(r, server.number)
    -- Anything but a number of a decision.
    if not (code >= 0) then
        return refuse(server, "the decision failed: " .. tostring(code))
    end
    local allowed = code % REASONS == GRANTED
    if allowed then
        -- First, so that no record says `allow` of a request whose headers could not be cleaned.
        apply(r)
        count(code, nanoseconds, bucket, set_record(r))
        return
    end
    -- Called twice in one block: what the first call allowed has lost its token since, and the second denies it.
    local earlier = earlier_record()
    if server.again then
        return pass_again(server, earlier)
    end
    if earlier then
        return refuse_decided(server, earlier)
    end
    count(code, nanoseconds, bucket, set_record(r))
    -- Of an allowed request they are in its header.
    set_other_tenants(r)
    return server, reason_of(code % REASONS), text_of(answer.record)
end


-- An error was raised: a mistake in the configuration, or ours. It ends as every denial does, since an error_page may
-- lead upstream.
local function fail(problem)
    if not denial.can_be_sent() then
        return error(problem, 0)
    end
    -- Only a policy tells whether the gateway decides at all, and a mistake is found before there is one.
    pcall(ensure)
    local ok, server = pcall(refuse, NONE, tostring(problem))
    -- Nothing where the whole gateway only records.
    if not ok or server then
        return deny(NONE, "internal_error")
    end
end


-- Decides this request: returns on allow, ends it with a denial otherwise.
function _M.enforce(options)
    local ok, server, reason, record = pcall(run, options)
    if not ok then
        return fail(server)
    end
    if reason then
        return deny(server, reason, record)
    end
end


return _M
