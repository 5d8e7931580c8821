// What all contestants of a benchmark share: threads, the allocator's setting, and which of them run at the same time.

export type Dtype = 'bf16' | 'float32';
export type Memory = 'kept' | 'default';

/** Arguments of env: threads, and for `kept` glibc's allocator told to keep what is freed and libtorch's to take huge pages. */
export function environment(threads: number, memory: Memory): string[] {
  const kept = ['MALLOC_MMAP_MAX_=0', 'MALLOC_TRIM_THRESHOLD_=1099511627776', 'THP_MEM_ALLOC_ENABLE=1'];
  const clean = ['-u', 'MALLOC_MMAP_MAX_', '-u', 'MALLOC_TRIM_THRESHOLD_', '-u', 'THP_MEM_ALLOC_ENABLE'];
  return [...clean, `OMP_NUM_THREADS=${threads}`, `MKL_NUM_THREADS=${threads}`, ...(memory === 'kept' ? kept : [])];
}

/** Groups of rivals that fit into `budget` bytes together with those that are always there, in the order given; none is empty. */
export function groupsWithin(
  rivals: string[],
  { always, bytesOf, budget }: { always: number; bytesOf: (rival: string) => number; budget: number },
): string[][] {
  const groups: string[][] = [[]];
  let used = always;
  for (const rival of rivals) {
    const bytes = bytesOf(rival);
    if (used + bytes > budget && groups.at(-1)!.length > 0) {
      groups.push([]);
      used = always;
    }
    groups.at(-1)!.push(rival);
    used += bytes;
  }
  return groups;
}
