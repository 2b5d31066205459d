-- forwarding → signed, due after a pause. A pause that begins before the deadline ends at the deadline at the latest: the
-- card API is then asked what became of the attempt.
-- ARGV  3 fencing token  4 code  5 pause (µs)  6 upstream_status  7 refused_since

if not is_repeat() then
  local why = why_not(ARGV[3], 'forwarding', 'signed')
  if why then
    return result(why)
  end
  local due_at = now + ARGV[5]
  if now < record.expires_at then
    due_at = math.min(due_at, record.expires_at)
  end
  move('signed', due_at, 'code', ARGV[4], 'due_at', due_at, 'leased_until', '', 'upstream_status', ARGV[6],
    'refused_since', ARGV[7])
end
return result('moved')
