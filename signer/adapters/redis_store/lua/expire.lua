-- claimed, released, signed → expired, where nobody holds it, its deadline has passed and no attempt was ever begun.
-- ARGV  3 code: not signed  4 code: not to be forwarded  5 code: not delivered

if repeated() and record.state == 'expired' then
  return answer('moved')
end
if not record or not MOVES[record.state .. '>expired'] or now < record.expires_at then
  return nothing()
end
local code
if record.state == 'signed' then
  code = record.forward and ARGV[5] or ARGV[4]
else
  code = ARGV[3]
end
if record.attempts > 0 or record.state == 'claimed' and leased() then
  return nothing()
end
move('expired', nil, 'code', code, 'leased_until', '')
return answer('moved')
