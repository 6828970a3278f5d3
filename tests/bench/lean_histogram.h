/*
 * Times in a histogram: 64 steps for each power of two, so a value is kept within 1.6 %, in a fixed amount of memory.
 */
#ifndef LEAN_HISTOGRAM_H
#define LEAN_HISTOGRAM_H

#include <stdint.h>

#define STEPS 64
#define STEP_BITS 6
#define BUCKETS (STEPS * (64 - STEP_BITS + 1))

struct histogram {
  uint64_t buckets[BUCKETS];
  uint64_t count;
  uint64_t sum_ns;
  uint64_t max_ns;
};

/* Values below STEPS have a bucket each; above, the highest bit and the 6 bits behind it say which one. */
static int bucket_of(uint64_t ns) {
  if (ns < STEPS) return (int)ns;
  int highest = 63 - __builtin_clzll(ns);
  return (highest - STEP_BITS + 1) * STEPS + (int)((ns >> (highest - STEP_BITS)) & (STEPS - 1));
}

/* The least value of a bucket. */
static uint64_t least_of(int bucket) {
  if (bucket < STEPS) return (uint64_t)bucket;
  int highest = bucket / STEPS + STEP_BITS - 1;
  return (1ull << highest) | ((uint64_t)(bucket % STEPS) << (highest - STEP_BITS));
}

static void histogram_add(struct histogram *to, uint64_t ns) {
  to->buckets[bucket_of(ns)]++;
  to->count++;
  to->sum_ns += ns;
  if (ns > to->max_ns) to->max_ns = ns;
}

static void histogram_merge(struct histogram *to, const struct histogram *from) {
  for (int i = 0; i < BUCKETS; i++) to->buckets[i] += from->buckets[i];
  to->count += from->count;
  to->sum_ns += from->sum_ns;
  if (from->max_ns > to->max_ns) to->max_ns = from->max_ns;
}

/* Microseconds that this share of all values does not exceed; 0 where there are none. */
static double percentile_us(const struct histogram *of, double share) {
  uint64_t seen = 0;
  for (int i = 0; i < BUCKETS; i++) {
    seen += of->buckets[i];
    if (seen > 0 && (double)seen >= share * (double)of->count) return (double)least_of(i) / 1000;
  }
  return 0;
}

#endif
