-- signed → forwarding, forwarding → forwarding under a new lease; counts the attempt that begins.
-- ARGV  3 lease (µs)  4 key memory (µs)

if not record or not MOVES[record.state .. '>forwarding'] or not record.forward then
  return not_applicable()
end
local open = is_deliverable(ARGV[4])
local outcome = open and 'deliverable' or 'overdue'
if record.state == 'forwarding' and is_leased() then
  return is_repeat() and result(outcome) or not_applicable()
end
if record.state == 'signed' and is_pending(record.due_at) then
  return not_applicable()
end
if not open and record.attempts == 0 then
  return not_applicable()
end
local leased_until = now + ARGV[3]
move('forwarding', leased_until, 'fence', record.fence + 1, 'leased_until', leased_until, 'code', '',
  'attempts', record.attempts + (open and 1 or 0), 'first_attempt_at', record.first_attempt_at or now)
return result(outcome)
