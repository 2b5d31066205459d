-- claimed → released.
-- ARGV  3 fence  4 code

if not is_repeat() then
  local why = why_not(ARGV[3], 'claimed', 'released')
  if why then
    return result(why)
  end
  move('released', record.expires_at, 'code', ARGV[4], 'leased_until', '')
end
return result('moved')
