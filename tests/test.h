/* What every test includes first: cmocka with the headers it forgets to include itself. */
#ifndef NJ_TEST_H
#define NJ_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
