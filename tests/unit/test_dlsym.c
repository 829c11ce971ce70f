/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The shim's dlsym and dlvsym, which are written in each machine's assembly: ours by a library's handle, everything
 * else by the real one, which must see the caller as if we were not there.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void *verbs;

static int setup(void **state)
{
	(void)state;
	verbs = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
	return !verbs;
}

/* Is `fn` in the library whose name has `name` in it? */
static void assert_in(const void *fn, const char *name)
{
	Dl_info info;

	assert_non_null(fn);
	assert_true(dladdr(fn, &info));
	if (!strstr(info.dli_fname, name))
		fail_msg("found in %s", info.dli_fname);
}

static void ours_by_handle(void **state)
{
	(void)state;
	assert_in(dlsym(verbs, "ibv_open_device"), "libflexins-preload");
	assert_in(dlsym(verbs, "ibv_query_gid"), "libflexins-preload");
	assert_in(dlvsym(verbs, "ibv_open_device", "IBVERBS_1.1"), "libflexins-preload");
}

static void others_by_handle(void **state)
{
	(void)state;
	assert_in(dlsym(verbs, "ibv_copy_ah_attr_from_kern"), "libibverbs");
	assert_in(dlvsym(verbs, "ibv_copy_ah_attr_from_kern", "IBVERBS_1.1"), "libibverbs");
}

static void what_is_not_there(void **state)
{
	(void)state;
	dlerror();
	assert_null(dlsym(verbs, "ibv_no_such_function"));
	assert_non_null(strstr(dlerror(), "ibv_no_such_function"));
	assert_null(dlvsym(verbs, "ibv_open_device", "IBVERBS_0.0"));
	assert_non_null(strstr(dlerror(), "IBVERBS_0.0"));
	assert_null(dlsym(RTLD_DEFAULT, "no_such_function"));
	assert_non_null(dlerror());
}

/*
 * RTLD_NEXT is what comes behind the caller: of this program that is the shim. Were the shim itself taken for the caller,
 * it would be what comes behind the shim. (Not as a tail call, which would make the caller's caller the caller.)
 */
static void next_is_behind_the_caller(void **state)
{
	void *volatile fn;

	(void)state;
	fn = dlsym(RTLD_NEXT, "ibv_open_device");
	assert_in(fn, "libflexins-preload");
	fn = dlvsym(RTLD_NEXT, "strlen", "GLIBC_NONE");
	assert_null(fn);
	fn = dlsym(RTLD_NEXT, "getpid");
	assert_in(fn, "libc");
}

/* By a version, the loader's search would pass over the shim, whose definitions have none. */
static void versions_by_pseudo_handles(void **state)
{
	void *volatile global, *volatile fn;

	(void)state;
	global = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_GLOBAL);
	assert_non_null(global);
	fn = dlvsym(RTLD_NEXT, "ibv_open_device", "IBVERBS_1.1");
	assert_in(fn, "libflexins-preload");
	fn = dlvsym(RTLD_DEFAULT, "ibv_get_device_list", "IBVERBS_1.1");
	assert_in(fn, "libflexins-preload");
	fn = dlvsym(RTLD_NEXT, "ibv_open_device", "IBVERBS_0.0");
	assert_null(fn);
	fn = dlvsym(RTLD_DEFAULT, "ibv_copy_ah_attr_from_kern", "IBVERBS_1.1");
	assert_in(fn, "libibverbs");
	dlclose(global);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ours_by_handle),
		cmocka_unit_test(others_by_handle),
		cmocka_unit_test(what_is_not_there),
		cmocka_unit_test(next_is_behind_the_caller),
		cmocka_unit_test(versions_by_pseudo_handles),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
