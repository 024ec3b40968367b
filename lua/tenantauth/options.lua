-- Checks of what a configuration passes. A mistake raises an error that names the option, at the caller's line.

local type = type
local error = error
local pairs = pairs

local _M = {}


-- `level`: how many functions of ours were called on the way here, that of the interface among them; not counted are
-- those that called another one last of all, since LuaJIT forgets them.
function _M.fail(level, where, message)
    error("tenantauth." .. where .. ": " .. message, level + 2)
end


-- Whether `options` is nil or a table with no other keys than those of `known` (name -> type or check).
function _M.check(level, where, options, known)
    if options == nil then
        return {}
    end
    if type(options) ~= "table" then
        _M.fail(level + 1, where, "options must be a table, got " .. type(options))
    end
    for name, value in pairs(options) do
        local check = known[name]
        if check == nil then
            _M.fail(level + 1, where, "unknown option `" .. tostring(name) .. "`")
        end
        if type(check) == "string" then
            if type(value) ~= check then
                _M.fail(level + 1, where, "option `" .. name .. "` must be a " .. check .. ", got " .. type(value))
            end
        else
            local problem = check(value)
            if problem then
                _M.fail(level + 1, where, "option `" .. name .. "` " .. problem)
            end
        end
    end
    return options
end


function _M.nonempty_string(value)
    if type(value) ~= "string" then
        return "must be a string, got " .. type(value)
    end
    if value == "" then
        return "must not be empty"
    end
end


function _M.list_of_strings(value)
    if type(value) ~= "table" then
        return "must be a list of strings, got " .. type(value)
    end
    local count = 0
    for key, item in pairs(value) do
        if type(key) ~= "number" or type(item) ~= "string" or item == "" then
            return "must be a list of strings"
        end
        count = count + 1
    end
    if count ~= #value then
        return "must be a list of strings"
    end
end


return _M
