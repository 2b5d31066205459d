-- claimed, released, signed → expired, if no lease is live, the deadline has passed and no attempt was begun.
-- ARGV  3 code: not signed  4 code: not to be forwarded  5 code: not delivered

if is_repeat() and record.state == 'expired' then
  return result('moved')
end
if not record or not MOVES[record.state .. '>expired'] or now < record.expires_at then
  return not_applicable()
end
if record.attempts > 0 or record.state == 'claimed' and is_leased() then
  return not_applicable()
end
local code = record.state ~= 'signed' and ARGV[3] or record.forward and ARGV[5] or ARGV[4]
move('expired', nil, 'code', code, 'leased_until', '')
return result('moved')
