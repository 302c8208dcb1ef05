-- wrk: the requests of many sessions in turn. Arguments: the files with what comes before and after
-- the number of the session, how many digits it has, and how many sessions there are.
local before, after, number, sessions
local last = 0

local function read(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

function init(arguments)
  before, after = read(arguments[1]), read(arguments[2])
  number, sessions = "%0" .. arguments[3] .. "d", tonumber(arguments[4])
end

function request()
  last = last % sessions + 1
  return before .. string.format(number, last) .. after
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"microseconds":%d,"failures":%d,"p50":%d,"p99":%d}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
