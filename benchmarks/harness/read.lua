-- wrk itself does not print this percentile.
done = function(_, latency)
  io.write(string.format("p95 us %d\n", latency:percentile(95)))
end
