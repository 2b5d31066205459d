-- claimed → signed, and on to forwarding if it is to be delivered and its deadline has not passed.
-- ARGV  3 fence  4 lease (µs)  5 key memory (µs)  6 submission  7 signature

if not is_repeat() then
  local why = why_not(ARGV[3], 'claimed', 'signed')
  if why then
    return result(why)
  end
  if record.forward and is_deliverable(ARGV[5]) and MOVES['signed>forwarding'] then
    local leased_until = now + ARGV[4]
    move('forwarding', leased_until, 'submission', ARGV[6], 'signature', ARGV[7], 'leased_until', leased_until,
      'attempts', 1, 'first_attempt_at', now)
    record.first_attempt_at = now
  else
    move('signed', record.expires_at, 'submission', ARGV[6], 'signature', ARGV[7], 'leased_until', '')
  end
end
return result(is_deliverable(ARGV[5]) and 'deliverable' or 'overdue')
