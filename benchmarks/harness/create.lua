-- The request that is sent.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"name": "Kettle", "description": "Boils a litre in two minutes.", "price": 34.5, "is_active": true}'

done = function(_, latency)
  io.write(string.format("p95 us %d\n", latency:percentile(95)))
end
