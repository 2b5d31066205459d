-- forwarding → a final state; the submission, a live credential, is removed.
-- ARGV  3 fence  4 state  5 code  6 superseded_by  7 upstream_status

if not is_repeat() then
  local why = why_not(ARGV[3], 'forwarding', ARGV[4])
  if why or not FINAL[ARGV[4]] then
    return result(why or 'forbidden')
  end
  move(ARGV[4], nil, 'code', ARGV[5], 'superseded_by', ARGV[6], 'leased_until', '', 'upstream_status',
    ARGV[7])
end
return result('moved')
