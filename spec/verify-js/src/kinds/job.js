import { Job } from '../job.js'
import { atStep } from '../refusal.js'

/** Plays a job's moves to one side, and its clock. */
export function run({ role, first_chunk_ms_max, gap_ms_max, moves, expire_at_ms }) {
  const job = new Job({ role, first_chunk_ms_max, gap_ms_max, now_ms: moves[0]?.[0] ?? 0 })
  for (const [at, [now, sender, event]] of moves.entries()) atStep(at, () => job.move(now, sender, event))
  if (expire_at_ms !== undefined) job.expire(expire_at_ms)
  return { state: job.state, unpaid: job.unpaid, deadline_ms: job.deadline }
}
