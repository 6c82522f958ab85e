/* loops.h for float and double, with the constants of their exponentials. At LOWEST 2^n is written as 0.
 * LN2_HIGH has so few digits that n * LN2_HIGH is exact; adding MAGIC, 1.5 * 2^FRACTION_BITS, rounds to an integer. */
#define LANES ((int)(VECTOR_BYTES / sizeof(REAL)))

#define TYPE float
#define REAL float
#define BITS_OF_REAL uint32_t
#define ABS fabsf
#define COPYSIGN copysignf
#define LOWEST -88.0f
#define LOG2_E 1.44269504f
#define MAGIC 12582912.0f
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define FRACTION_BITS 23
#define EXPONENT_OF_ONE 127
#define INVERSE_FACTORIALS 1 / 5040.0f, 1 / 720.0f, 1 / 120.0f, 1 / 24.0f, 1 / 6.0f, 0.5f
#include "loops.h"
#undef TYPE
#undef REAL
#undef BITS_OF_REAL
#undef ABS
#undef COPYSIGN
#undef LOWEST
#undef LOG2_E
#undef MAGIC
#undef LN2_HIGH
#undef LN2_LOW
#undef FRACTION_BITS
#undef EXPONENT_OF_ONE
#undef INVERSE_FACTORIALS

#define TYPE double
#define REAL double
#define BITS_OF_REAL uint64_t
#define ABS fabs
#define COPYSIGN copysign
#define LOWEST -709.0
#define LOG2_E 1.4426950408889634
#define MAGIC 6755399441055744.0
#define LN2_HIGH 0x1.62e42fefa38p-1
#define LN2_LOW 0x1.ef35793c7673p-45
#define FRACTION_BITS 52
#define EXPONENT_OF_ONE 1023
#define INVERSE_FACTORIALS \
    1 / 6227020800.0, 1 / 479001600.0, 1 / 39916800.0, 1 / 3628800.0, 1 / 362880.0, 1 / 40320.0, 1 / 5040.0, \
    1 / 720.0, 1 / 120.0, 1 / 24.0, 1 / 6.0, 0.5
#include "loops.h"
#undef TYPE
#undef REAL
#undef BITS_OF_REAL
#undef ABS
#undef COPYSIGN
#undef LOWEST
#undef LOG2_E
#undef MAGIC
#undef LN2_HIGH
#undef LN2_LOW
#undef FRACTION_BITS
#undef EXPONENT_OF_ONE
#undef INVERSE_FACTORIALS
#undef LANES
