-- The request that is sent: a batch of as many items as the first argument says, each with a description of as many
-- characters as the second one says.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function init(arguments)
  local description = string.rep("x", tonumber(arguments[2]))
  local item = '{"name": "Kettle", "description": "' .. description .. '", "price": 34.5, "is_active": true}'
  local items = {}
  for number = 1, tonumber(arguments[1]) do
    items[number] = item
  end
  wrk.body = '{"items": [' .. table.concat(items, ",") .. "]}"
end

done = function(_, latency)
  io.write(string.format("p95 us %d\n", latency:percentile(95)))
end
