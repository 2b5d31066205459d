-- signed → forwarding, forwarding → forwarding under a new lease; counts the attempt that is begun.
-- ARGV  3 lease (µs)  4 key memory (µs)

if not record or not MOVES[record.state .. '>forwarding'] or not record.forward then
  return nothing()
end
local open = deliverable(ARGV[4])
local outcome = open and 'deliverable' or 'overdue'
if record.state == 'forwarding' and leased() then
  return repeated() and answer(outcome) or nothing()
end
if record.state == 'signed' and pending(record.due_at) then
  return nothing()
end
if not open and record.attempts == 0 then
  return nothing()
end
local leased_until = now + ARGV[3]
move('forwarding', leased_until, 'fence', record.fence + 1, 'leased_until', leased_until, 'code', '',
  'attempts', record.attempts + (open and 1 or 0), 'first_attempt_at', record.first_attempt_at or now)
return answer(outcome)
