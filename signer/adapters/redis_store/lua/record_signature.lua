-- claimed → signed, and on to forwarding where it is to be delivered and its deadline has not passed.
-- ARGV  3 fence  4 lease (µs)  5 key memory (µs)  6 submission  7 signature

if not repeated() then
  local why = refusal(ARGV[3], 'claimed', 'signed')
  if why then
    return answer(why)
  end
  if record.forward and deliverable(ARGV[5]) and MOVES['signed>forwarding'] then
    local leased_until = now + ARGV[4]
    move('forwarding', leased_until, 'submission', ARGV[6], 'signature', ARGV[7], 'leased_until', leased_until,
      'attempts', 1, 'first_attempt_at', now)
    record.first_attempt_at = now
  else
    move('signed', record.expires_at, 'submission', ARGV[6], 'signature', ARGV[7], 'leased_until', '')
  end
end
return answer(deliverable(ARGV[5]) and 'deliverable' or 'overdue')
