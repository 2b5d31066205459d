-- wrk's script: each request has a challenge of its own, as the card API would issue it, for a customer of its own.
-- Arguments: a file with owners, one on each line; chain, domain, statement, bearer token, a random text that no other
-- run has; what to request: forward, sign, fetch or onboard (benchmarks/load.py).

local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local char, byte, floor = string.char, string.byte, math.floor
local digits = {}
for i = 0, 63 do digits[i] = alphabet:sub(i + 1, i + 1) end

local function base64(text)
  local out, n = {}, 0
  for i = 1, #text, 3 do
    local a, b, c = byte(text, i, i + 2)
    local bits = a * 65536 + (b or 0) * 256 + (c or 0)
    out[n + 1] = digits[floor(bits / 262144)]
    out[n + 2] = digits[floor(bits / 4096) % 64]
    out[n + 3] = b and digits[floor(bits / 64) % 64] or "="
    out[n + 4] = c and digits[bits % 64] or "="
    n = n + 4
  end
  return table.concat(out)
end

local count, owners = 0, {}
local chain, domain, statement, run, what
function init(args)
  for line in io.lines(args[1]) do owners[#owners + 1] = line end
  chain, domain, statement, run, what = args[2], args[3], args[4], args[6], args[7]
  wrk.headers["Content-Type"] = "application/json"
  wrk.headers["Authorization"] = "Bearer " .. args[5]
  math.randomseed(tonumber(run:sub(1, 8), 16))
end

local function challenge(owner)
  return base64(domain .. " wants you to sign in with your Ethereum account:\n" .. owner .. "\n\n" .. statement
    .. "\n\nURI: https://" .. domain .. "\nVersion: 1\nChain ID: " .. chain
    .. "\nNonce: " .. run .. string.format("%02d%08d", number, count)
    .. "\nIssued At: " .. os.date("!%Y-%m-%dT%H:%M:%SZ"))
end

function request()
  count = count + 1
  local owner = owners[math.random(#owners)]
  local account = '"ownerId":"eip155:' .. chain .. ":" .. owner .. '"'
  if what == "onboard" then -- an account of digits only has one spelling
    return wrk.format("POST", "/v1/customers", nil, string.format(
      '{"chainId":"eip155:%s:0x%040d","externalId":"%s-%d-%d",%s}', chain, count, run, number, count, account))
  end
  local body = "{" .. account
  if what ~= "fetch" then body = body .. ',"challenge":"' .. challenge(owner) .. '"' end
  if what == "sign" then body = body .. ',"forward":false' end
  local customer = string.format("%s-0000-4000-8000-%04x%08x", run:sub(1, 8), number, count)
  return wrk.format("POST", "/v1/customers/" .. customer .. "/challenge/sign", nil, body .. "}")
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"count": %d, "seconds": %f, "failed": %d, "p50": %f, "p99": %f, "p999": %f}\n',
    summary.requests, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3))
end
