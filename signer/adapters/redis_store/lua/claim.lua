-- (nothing) → claimed, released → claimed, claimed → claimed under a new lease.
-- A record that the clock, set ahead, let Redis forget is not made again, for its nonce may have been signed: by the time it
-- is forgotten its challenge is over, and one that is over is not begun.
-- KEYS[3]  the pointer from customer and owner to the newest id
-- ARGV     3 lease (µs)  4 retention (ms)  5 message_hash  6 customer_id  7 owner  8 forward  9 issued_at  10 expires_at

local leased_until = now + ARGV[3]
local message_hash, customer_id, forward, expires_at = ARGV[5], ARGV[6], ARGV[8], ARGV[10]

if not record then
  if now >= tonumber(expires_at) then
    return {'too_late', now}
  end
  move('claimed', math.max(expires_at, leased_until), 'message_hash', message_hash, 'customer_id', customer_id,
    'owner', ARGV[7], 'forward', forward, 'issued_at', ARGV[9], 'expires_at', expires_at, 'attempts', 0, 'fence', 1,
    'leased_until', leased_until, 'created_at', now)
  local kept = math.max(ARGV[4], math.ceil((expires_at - now) / 1000) + 1)
  redis.call('PEXPIRE', KEYS[1], kept)
  redis.call('SET', KEYS[3], id, 'PX', kept)
  return answer('mine')
end
if record.message_hash ~= message_hash then
  return answer('nonce_reused')
end
if record.customer_id ~= customer_id then
  return answer('bound_elsewhere')
end
if forward == '1' and not record.forward and not FINAL[record.state] then
  redis.call('HSET', KEYS[1], 'forward', 1)
  if record.state == 'signed' then
    redis.call('ZADD', KEYS[2], now, id)
  end
end
if not MOVES[record.state .. '>claimed'] then
  return answer('known')
end
if record.state == 'claimed' and leased() then
  return answer(repeated() and 'mine' or 'held')
end
move('claimed', math.max(record.expires_at, leased_until), 'fence', record.fence + 1, 'leased_until', leased_until,
  'code', '')
return answer('mine')
