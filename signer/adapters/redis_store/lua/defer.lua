-- forwarding → signed, due later. Before the deadline the pause ends with it: what became of an attempt is asked then.
-- ARGV  3 fence  4 code  5 pause (µs)

if not repeated() then
  local why = refusal(ARGV[3], 'forwarding', 'signed')
  if why then
    return answer(why)
  end
  local due_at = now + ARGV[5]
  if now < record.expires_at then
    due_at = math.min(due_at, record.expires_at)
  end
  move('signed', due_at, 'code', ARGV[4], 'due_at', due_at, 'leased_until', '')
end
return answer('moved')
