-- A worker's engine: started by init_worker, or by the first request of a drop-in; its timers; its counters.

local native, import = ...

local options_of = import("options")

local ngx = ngx
local ngx_log = ngx.log
local ngx_sleep = ngx.sleep
local timer_every = ngx.timer.every
local pcall = pcall

local TALLY_KEY, SUM_KEY = native.TALLY_KEY, native.SUM_KEY
local LOADING, READY = native.LOADING, native.READY
local LEVELS = { error = ngx.ERR, warn = ngx.WARN, notice = ngx.NOTICE }
local DEFAULT_POLICY = "/etc/tenantauth/policy.yaml"
local DEFAULT_DICT = "tenantauth"
-- Fetched keys reach the other workers in two ticks at most.
local TICK = 0.25
-- A worker that has not been heard of for so long is not counted.
local WORKER_TTL = 5
local FIRST_LOAD_WAIT = 2

local _M = {
    -- The shared dictionary, or nil without one.
    dict = nil,
}

-- ENOENT.
local NO_ENTRY = 2

local attached = false
local ready = false
local local_counters = {}
-- Seconds since 1970 of this worker's start.
local started = 0


-- The policy of a drop-in. nginx passes the variable on only with `env`.
local function default_policy()
    return os.getenv("TENANTAUTH_POLICY") or DEFAULT_POLICY
end


local function attach_dict(name)
    local dict = ngx.shared[name]
    if dict then
        local key = dict:get("hash_key")
        if not key then
            key = native.random_key()
            if not dict:add("hash_key", key) then
                key = dict:get("hash_key") or key
            end
        end
        native.set_hash_key(key)
    end
    _M.dict = dict
end


-- Adds to a counter of all workers; without a shared dictionary, of this one.
function _M.add(key, value)
    local dict = _M.dict
    if dict then
        dict:incr(key, value, 0)
    else
        local_counters[key] = (local_counters[key] or 0) + value
    end
end


-- Calls `each` with every counter and its value.
function _M.each_counter(each)
    local dict = _M.dict
    if not dict then
        for key, value in pairs(local_counters) do
            each(key, value)
        end
        return
    end
    for _, key in ipairs(dict:get_keys(0)) do
        -- Only the counters: reading the last good policy here would copy it, and its secrets, for nothing.
        if key:find(TALLY_KEY, 1, true) == 1 or key == SUM_KEY or key:find("^tenantauth_") then
            local value = dict:get(key)
            if value then
                each(key, value)
            end
        end
    end
end


-- Entries of all workers' token caches.
function _M.cache_entries()
    local dict = _M.dict
    if not dict then
        return native.cache_entries()
    end
    local sum = 0
    for _, key in ipairs(dict:get_keys(0)) do
        if key:sub(1, 8) == "entries:" then
            sum = sum + (dict:get(key) or 0)
        end
    end
    return sum
end


-- Revision by worker, as far as the shared dictionary knows.
function _M.workers()
    local workers = {}
    local dict = _M.dict
    if not dict then
        workers[ngx.worker.pid()] = native.revision() or ""
        return workers
    end
    for _, key in ipairs(dict:get_keys(0)) do
        local pid = key:match("^worker:(%d+)$")
        local revision = pid and dict:get(key)
        if revision then
            workers[tonumber(pid)] = revision
        end
    end
    return workers
end


-- Cached tokens and uptime in seconds of a worker that workers() lists; -1 for the uptime of one that has no engine.
function _M.facts(pid)
    local dict = _M.dict
    if not dict then
        return native.cache_entries(), started > 0 and ngx.time() - started or -1
    end
    local since = dict:get("started:" .. pid)
    return dict:get("entries:" .. pid) or 0, since and ngx.time() - since or -1
end


-- How often this worker had each text to log, by its hash. Forgotten when there are too many of them.
local said, said_count = {}, 0
local MAX_SAID = 1000
-- All workers learn of a change within an interval of theirs, and this many seconds.
local SAID_SECONDS = 10
local interval = 2


-- Whether another worker has logged this text already, as often as this one now has to: what happens to a file is seen
-- by each of them. A text that comes again after something else is the next one, and is logged again.
local function is_logged(message)
    local dict = _M.dict or ngx.shared[DEFAULT_DICT]
    if not dict then
        return false
    end
    local hash = ngx.md5(message)
    if not said[hash] then
        if said_count == MAX_SAID then
            said, said_count = {}, 0
        end
        said_count = said_count + 1
    end
    local times = (said[hash] or 0) + 1
    said[hash] = times
    -- Counters are worth more than a line that is not repeated: nothing gives way to this.
    local added, problem = dict:safe_add("said:" .. hash .. ":" .. times, true, interval + SAID_SECONDS)
    return not added and problem == "exists"
end


-- What a new worker has to say is new, whatever those before it said a moment ago.
local function begin_after_others(dict)
    for _, key in ipairs(dict and dict:get_keys(0) or {}) do
        local hash, times = key:match("^said:(%x+):(%d+)$")
        if hash then
            said[hash] = math.max(said[hash] or 0, tonumber(times))
        end
    end
end


-- Logs a message about what all workers see, once for all of them where there is a shared dictionary.
function _M.log(level, message)
    if not is_logged(message) then
        ngx_log(LEVELS[level] or ngx.ERR, "tenantauth: ", message)
    end
end


-- Logs what the engine's thread has to say and writes down what other workers may want to know.
function _M.report()
    local level, message = native.next_message()
    while level do
        _M.log(level, message)
        level, message = native.next_message()
    end
    local accepted, rejected = native.take_reload_counts()
    if accepted > 0 then
        _M.add('tenantauth_policy_reloads_total{result="success"}', accepted)
    end
    if rejected > 0 then
        _M.add('tenantauth_policy_reloads_total{result="failure"}', rejected)
    end
    local dict = _M.dict
    native.share_policy(dict)
    native.exchange(dict)
    local sample, by = native.take_counter()
    while sample do
        _M.add(sample, by)
        sample, by = native.take_counter()
    end
    if dict then
        local pid = ngx.worker.pid()
        dict:set("worker:" .. pid, native.revision() or "", WORKER_TTL)
        dict:set("entries:" .. pid, native.cache_entries(), WORKER_TTL)
        -- 0 in a Lua state that did not start the engine: under `lua_code_cache off` every request has its own.
        if started > 0 then
            dict:set("started:" .. pid, started, WORKER_TTL)
        end
    end
end


local function tick(premature)
    if not premature then
        return _M.report()
    end
    local dict = _M.dict
    if dict then
        native.share_policy(dict)
        local pid = ngx.worker.pid()
        dict:delete("worker:" .. pid)
        dict:delete("entries:" .. pid)
        dict:delete("started:" .. pid)
    end
end


-- The keys that former workers fetched: with them the first request finds keys, and no provider is asked.
local function fetched_keys(dict)
    local keys = {}
    for _, key in ipairs(dict and dict:get_keys(0) or {}) do
        if key:sub(1, 5) == "jwks:" then
            keys[#keys + 1] = dict:get(key)
        end
    end
    return keys
end


local function start(policy, dict_name, reload_interval, state_dir)
    interval = reload_interval
    local shared = ngx.shared[dict_name]
    begin_after_others(shared)
    local ok, problem = native.start(policy, dict_name, reload_interval, state_dir,
        shared and shared:get(native.LAST_GOOD), fetched_keys(shared))
    if not ok then
        ngx_log(ngx.ERR, "tenantauth: ", problem)
        return nil, problem
    end
    attach_dict(dict_name)
    attached = true
    -- Once a process: under `lua_code_cache off` every request has a Lua state of its own and comes by here.
    if native.claim_timers(dict_name) then
        started = ngx.time()
        if not _M.dict then
            ngx_log(ngx.WARN, "tenantauth: no shared dict `", dict_name,
                "`: each worker counts for itself; help: add `lua_shared_dict ", dict_name, " 10m;` to http {}")
        end
        timer_every(TICK, tick)
    end
    return true
end


local function reload_interval(value)
    if type(value) ~= "number" then
        return "must be a number of seconds, got " .. type(value)
    end
    if not (value >= 0.1 and value <= 3600) then
        return "must be between 0.1 and 3600 seconds"
    end
end


local INIT_OPTIONS = {
    policy = options_of.nonempty_string,
    shared_dict = options_of.nonempty_string,
    reload_interval = reload_interval,
    state_dir = options_of.nonempty_string,
}


local function init(options)
    -- 3: `pcall` and _M.init stand between here and the configuration.
    options = options_of.check(3, "init_worker", options, INIT_OPTIONS)
    if ngx.get_phase() ~= "init_worker" then
        options_of.fail(3, "init_worker", "must be called in the init_worker phase, not in " .. ngx.get_phase())
    end
    -- The cache loader and manager processes of nginx serve no requests.
    if ngx.worker.id() == nil then
        return
    end
    local ok, problem = start(options.policy or DEFAULT_POLICY, options.shared_dict or DEFAULT_DICT,
        options.reload_interval or 2, options.state_dir)
    if not ok then
        options_of.fail(3, "init_worker", problem)
    end
end


function _M.init(options)
    local ok, problem = pcall(init, options)
    -- Kept for status(), and so that no other policy takes the place of the one that was named.
    native.set_init_problem(not ok and tostring(problem) or nil)
    if not ok then
        error(problem, 0)
    end
end


-- Whether this worker has a policy to decide by, or is meant to have one: nobody called init_worker, no request came,
-- and there is no file of a drop-in's.
function _M.has_policy()
    if attached or native.attach() or native.has_init_failed() then
        return true
    end
    local file, _, number = io.open(default_policy(), "r")
    if file then
        file:close()
    end
    return number ~= NO_ENTRY
end


-- Makes sure that this Lua state has an engine, and waits for its first policy without blocking the worker.
function _M.ensure()
    if ready then
        return
    end
    if not attached then
        local dict_name = native.attach()
        if dict_name then
            attach_dict(dict_name)
            attached = true
        elseif native.has_init_failed() then
            -- Somebody named a policy, wrongly. It is not replaced by the default one.
            return
        else
            -- The drop-in: nobody called init_worker.
            start(default_policy(), DEFAULT_DICT, 2)
        end
    end
    local waited = 0
    while native.readiness() == LOADING and waited < FIRST_LOAD_WAIT do
        ngx_sleep(0.01)
        waited = waited + 0.01
    end
    ready = native.readiness() == READY
end


return _M
