-- Posts one body to one path, from the environment, and prints what came of it as a line of JSON.
wrk.method = "POST"
wrk.body = os.getenv("LOAD_BODY")
for name, value in os.getenv("LOAD_HEADERS"):gmatch("([^:\n]+): ([^\n]+)") do
  wrk.headers[name] = value
end

done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"p50_us": %d, "p99_us": %d, "requests": %d, "seconds": %.6f, "failed": %d}',
    latency:percentile(50), latency:percentile(99), summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
