-- a damaged record → expired, from any state that is not final. A key that is not a hash is not written: its id leaves
-- the index only. The replica may have found the damage, so it is not looked for here.
-- ARGV  3 code

if record and not FINAL[record.state] then
  move('expired', nil, 'code', ARGV[3], 'leased_until', '')
else
  redis.call('ZREM', KEYS[2], id)
end
return {'ended', now}
