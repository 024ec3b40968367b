-- How a denial looks to the client.

local ngx = ngx

local _M = {}

-- In the other phases nothing can be sent.
local SENDING_PHASES = { server_rewrite = true, rewrite = true, access = true, precontent = true, content = true }


function _M.can_be_sent()
    return SENDING_PHASES[ngx.get_phase()] == true
end


-- Ends the request. `reason` comes from the closed list. `sentence` too, and behind it there may be a tenant of the
-- request and an address of the policy.
function _M.send(status, reason, sentence, json)
    local request_id = ngx.var.request_id or ""
    local text = sentence .. " (" .. reason .. "; request " .. request_id .. ")"
    local body
    if json then
        -- Neither sentences nor tenants hold anything that JSON escapes, and addresses are checked not to.
        body = '{"status":"error","errorType":"forbidden","error":"' .. text:gsub('["\\]', "\\%0") .. '"}\n'
    else
        body = text .. "\n"
    end
    ngx.status = status
    local header = ngx.header
    header["Content-Type"] = json and "application/json" or "text/plain; charset=utf-8"
    header["Content-Length"] = #body
    header["Cache-Control"] = "no-store"
    header["X-Tenantauth-Reason"] = reason
    header["X-Request-Id"] = request_id
    -- Sent before the exit, with or without a body: an answer that has begun is not replaced by an error_page, whose
    -- location may go upstream.
    if ngx.req.get_method() == "HEAD" then
        ngx.send_headers()
    else
        ngx.print(body)
    end
    return ngx.exit(status)
end


return _M
