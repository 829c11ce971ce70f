/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Interposed dlsym and dlvsym, for programs that load libibverbs themselves: asked for one of our functions by a
 * library's handle, they answer with ours. Everything else jumps on to the real one with the caller's return
 * address in its place, because RTLD_NEXT means "behind the caller".
 *
 * Room: shim. May use: libc. The real dlsym cannot be asked for with dlsym: it is looked up in the symbol tables of
 * the loaded objects behind ours.
 */
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shim.h"

typedef void *dlsym_fn(void *handle, const char *name);
typedef void *dlvsym_fn(void *handle, const char *name, const char *version);

/* Used by the assembly below, which no compiler looks into. */
__attribute__((used)) void *fx_shim_real_dlsym, *fx_shim_real_dlvsym;

/* ---- the loaded objects' symbol tables ---- */

struct symbols {
	const ElfW(Sym) * sym;
	const char *str;
	const ElfW(Half) * version; /* NULL: the object has no versions */
	const uint32_t *gnu_hash;
	ElfW(Addr) base;
};

/* The loader relocates some of these pointers in place and leaves others relative to the object. */
static const void *table_at(const struct link_map *map, ElfW(Addr) ptr)
{
	return (const void *)(ptr < map->l_addr ? ptr + map->l_addr : ptr);
}

static bool read_symbols(const struct link_map *map, struct symbols *s)
{
	*s = (struct symbols){.base = map->l_addr};
	for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_SYMTAB)
			s->sym = table_at(map, d->d_un.d_ptr);
		else if (d->d_tag == DT_STRTAB)
			s->str = table_at(map, d->d_un.d_ptr);
		else if (d->d_tag == DT_VERSYM)
			s->version = table_at(map, d->d_un.d_ptr);
		else if (d->d_tag == DT_GNU_HASH)
			s->gnu_hash = table_at(map, d->d_un.d_ptr);
	}
	return s->sym && s->str && s->gnu_hash;
}

/* The default version of a function, by the GNU hash table; NULL: not defined there. */
static void *find_symbol(const struct symbols *s, const char *name)
{
	enum { HIDDEN = 0x8000 }; /* of a version: not the default one */
	const uint32_t nbuckets = s->gnu_hash[0], first = s->gnu_hash[1], bloom = s->gnu_hash[2];
	const uint32_t *buckets = s->gnu_hash + 4 + bloom * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
	const uint32_t *chains = buckets + nbuckets;
	uint32_t hash = 5381;

	for (const char *c = name; *c; c++)
		hash = hash * 33 + (unsigned char)*c;
	for (uint32_t i = nbuckets ? buckets[hash % nbuckets] : 0; i >= first && i; i++) {
		uint32_t h = chains[i - first];
		const ElfW(Sym) *sym = &s->sym[i];

		if ((h | 1) == (hash | 1) && sym->st_shndx != SHN_UNDEF &&
		    strcmp(s->str + sym->st_name, name) == 0 && !(s->version && s->version[i] & HIDDEN))
			return (void *)(s->base + sym->st_value);
		if (h & 1)
			break;
	}
	return NULL;
}

/* The first definition behind this library, in the order of loading. */
void *fx_shim_behind(const char *name)
{
	bool behind = false;

	for (const struct link_map *map = _r_debug.r_map; map; map = map->l_next) {
		struct symbols s;
		void *found;

		if (map->l_ld == _DYNAMIC) {
			behind = true;
			continue;
		}
		if (!behind || !read_symbols(map, &s))
			continue;
		found = find_symbol(&s, name);
		if (found)
			return found;
	}
	return NULL;
}

/* Idempotent, so threads may race; runs early, or at the first call if some constructor was earlier. */
__attribute__((constructor)) static void find_real(void)
{
	/* dlvsym is stored first, each with release: a thread that finds dlsym (acquire) has both */
	if (!__atomic_load_n(&fx_shim_real_dlsym, __ATOMIC_ACQUIRE)) {
		__atomic_store_n(&fx_shim_real_dlvsym, fx_shim_behind("dlvsym"), __ATOMIC_RELEASE);
		__atomic_store_n(&fx_shim_real_dlsym, fx_shim_behind("dlsym"), __ATOMIC_RELEASE);
	}
	if (!fx_shim_real_dlsym || !fx_shim_real_dlvsym)
		fx_shim_missing("dlsym");
}

/* ---- the functions behind ours ---- */

_Noreturn void fx_shim_missing(const char *name)
{
	dprintf(STDERR_FILENO, "flexins: symbol lookup error: undefined symbol: %s\n", name);
	_exit(127);
}

void *fx_shim_real(const char *name, void **slot)
{
	void *fn = slot ? __atomic_load_n(slot, __ATOMIC_ACQUIRE) : NULL;

	if (fn)
		return fn;
	find_real();
	fn = ((dlsym_fn *)fx_shim_real_dlsym)(RTLD_NEXT, name);
	if (!fn) { /* loaded by the program itself, out of the global scope */
		void *lib = dlopen("libibverbs.so.1", RTLD_LAZY | RTLD_NOLOAD);

		if (lib) {
			fn = ((dlsym_fn *)fx_shim_real_dlsym)(lib, name);
			dlclose(lib); /* the program's own reference stays */
		}
	}
	if (slot)
		__atomic_store_n(slot, fn, __ATOMIC_RELEASE);
	return fn;
}

/* ---- dlsym and dlvsym ---- */

static bool is_pseudo(void *handle)
{
	return handle == RTLD_NEXT || handle == RTLD_DEFAULT;
}

static bool translates(const char *name)
{
	return name && (strncmp(name, "ibv_", 4) == 0 || strncmp(name, "_ibv_", 5) == 0);
}

/* Is this code of the program, or of a library loaded before us? */
static bool before_us(const void *code)
{
	const struct link_map *map = _r_debug.r_map;
	void *of = NULL;
	Dl_info info;

	if (!dladdr1(code, &info, &of, RTLD_DL_LINKMAP))
		return false;
	while (map && map->l_ld != _DYNAMIC && map != of)
		map = map->l_next;
	return map && map == of;
}

/* -> ours, or NULL: the real one shall answer, with an error too. A pseudo-handle's order of search finds us anyway. */
__attribute__((used)) void *fx_shim_dlsym(void *handle, const char *name)
{
	void *ours = translates(name) && !is_pseudo(handle) ? fx_shim_ours(name) : NULL;

	find_real();
	return ours && ((dlsym_fn *)fx_shim_real_dlsym)(handle, name) ? ours : NULL;
}

/* By a version the search passes over ours, which have none: where it would come by, ours is what is meant. */
__attribute__((used)) void *fx_shim_dlvsym(void *handle, const char *name, const char *version,
					   const void *caller)
{
	void *ours = translates(name) ? fx_shim_ours(name) : NULL;

	find_real();
	if (ours && is_pseudo(handle)) {
		if (handle == RTLD_NEXT && !before_us(caller))
			return NULL;
		handle = RTLD_NEXT; /* from here, behind us */
	}
	return ours && ((dlvsym_fn *)fx_shim_real_dlvsym)(handle, name, version) ? ours : NULL;
}

/*
 * Each asks its fx_shim_ function with its own arguments and the caller's address; an answer is returned, and without one it jumps to the real
 * function with registers and stack as the caller left them.
 */
#if defined(__x86_64__)
#define TRAMPOLINE(name)                                                                                     \
	__asm__(".pushsection .text\n"                                                                       \
		".globl " #name "\n"                                                                         \
		".type " #name ", @function\n"                                                               \
		".balign 16\n" #name ":\n"                                                                   \
		".cfi_startproc\n"                                                                           \
		"endbr64\n"                                                                                  \
		"pushq %rdi\n"                                                                               \
		".cfi_adjust_cfa_offset 8\n"                                                                 \
		"pushq %rsi\n"                                                                               \
		".cfi_adjust_cfa_offset 8\n"                                                                 \
		"pushq %rdx\n"                                                                               \
		".cfi_adjust_cfa_offset 8\n"                                                                 \
		"movq 24(%rsp), %rcx\n"                                                                      \
		"call fx_shim_" #name "\n"                                                                   \
		"popq %rdx\n"                                                                                \
		".cfi_adjust_cfa_offset -8\n"                                                                \
		"popq %rsi\n"                                                                                \
		".cfi_adjust_cfa_offset -8\n"                                                                \
		"popq %rdi\n"                                                                                \
		".cfi_adjust_cfa_offset -8\n"                                                                \
		"testq %rax, %rax\n"                                                                         \
		"jne 1f\n"                                                                                   \
		"jmpq *fx_shim_real_" #name "(%rip)\n"                                                       \
		"1: ret\n"                                                                                   \
		".cfi_endproc\n"                                                                             \
		".size " #name ", . - " #name "\n"                                                           \
		".popsection\n")
#elif defined(__aarch64__)
#define TRAMPOLINE(name)                                                                                     \
	__asm__(".pushsection .text\n"                                                                       \
		".globl " #name "\n"                                                                         \
		".type " #name ", %function\n"                                                               \
		".balign 16\n" #name ":\n"                                                                   \
		".cfi_startproc\n"                                                                           \
		"hint #34\n" /* bti c */                                                                     \
		"stp x29, x30, [sp, #-48]!\n"                                                                \
		".cfi_def_cfa_offset 48\n"                                                                   \
		".cfi_offset 29, -48\n"                                                                      \
		".cfi_offset 30, -40\n"                                                                      \
		"mov x29, sp\n"                                                                              \
		"stp x0, x1, [sp, #16]\n"                                                                    \
		"str x2, [sp, #32]\n"                                                                        \
		"mov x3, x30\n"                                                                              \
		"bl fx_shim_" #name "\n"                                                                     \
		"mov x16, x0\n"                                                                              \
		"ldp x0, x1, [sp, #16]\n"                                                                    \
		"ldr x2, [sp, #32]\n"                                                                        \
		"ldp x29, x30, [sp], #48\n"                                                                  \
		".cfi_def_cfa_offset 0\n"                                                                    \
		".cfi_restore 29\n"                                                                          \
		".cfi_restore 30\n"                                                                          \
		"cbnz x16, 1f\n"                                                                             \
		"adrp x16, fx_shim_real_" #name "\n"                                                         \
		"ldr x16, [x16, :lo12:fx_shim_real_" #name "]\n"                                             \
		"br x16\n"                                                                                   \
		"1: mov x0, x16\n"                                                                           \
		"ret\n"                                                                                      \
		".cfi_endproc\n"                                                                             \
		".size " #name ", . - " #name "\n"                                                           \
		".popsection\n")
#else
#error "dlsym needs a trampoline for this machine"
#endif

TRAMPOLINE(dlsym);
TRAMPOLINE(dlvsym);
