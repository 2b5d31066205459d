-- claimed → released.
-- ARGV  3 fence  4 code

if not repeated() then
  local why = refusal(ARGV[3], 'claimed', 'released')
  if why then
    return answer(why)
  end
  move('released', record.expires_at, 'code', ARGV[4], 'leased_until', '')
end
return answer('moved')
