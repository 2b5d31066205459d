/* A PKCS #11 module that forwards to a real one, and fails, hangs or loses its token on request.
 *
 * It counts violations of the standard on which real modules may crash (`fake_violations`): two threads in one session, and
 * C_Finalize with a thread inside.
 *
 * Every function of the standard takes at most eight integers and pointers, so one wrapper fits all.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long CK;
typedef CK (*function)(CK, CK, CK, CK, CK, CK, CK, CK);
typedef struct { unsigned char version[2]; void *functions[68]; } function_list;
typedef struct { CK type; void *value; CK length; } attribute;

enum { INITIALIZE = 0, FINALIZE = 1, GET_SLOT_LIST = 4, GET_SLOT_INFO = 5, GET_TOKEN_INFO = 6, GET_MECHANISM_INFO = 8,
       INIT_TOKEN = 9, OPEN_SESSION = 12, CLOSE_SESSION = 13, CLOSE_ALL_SESSIONS = 14, FIRST_OF_A_SESSION = 15,
       GET_ATTRIBUTE_VALUE = 24, LAST_OF_A_SESSION = 64, FUNCTIONS = 68, SESSIONS = 1 << 16 };
enum { CKR_DEVICE_REMOVED = 0x32, CKF_TOKEN_PRESENT = 1, FLAGS_OF_TOKEN_INFO = 96, CKA_EC_POINT = 0x181 };

static function_list *real, ours = { .version = { 2, 40 } };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static CK failure[FUNCTIONS];                 /* what a function returns instead of a call, */
static long failures[FUNCTIONS];              /* how often; below zero: always, */
static long successes[FUNCTIONS];             /* and after how many calls */
static long hangs[FUNCTIONS];                 /* how many calls hang; below zero: all, */
static long passes[FUNCTIONS];                /* after how many, */
static long let_gos[FUNCTIONS];               /* and until when */
static atomic_long calls[FUNCTIONS], inside, hanging, violations;
static atomic_char busy[SESSIONS];
static CK shift, next_shift, token_flags;     /* what is added to slot numbers, now and after C_Initialize */
static int is_out, was_out, point_form;

static CK take_failure(int index) {
  CK code = 0;
  pthread_mutex_lock(&lock);
  if (hangs[index] && passes[index]-- <= 0) {
    long until = let_gos[index] + 1;
    if (hangs[index] > 0) hangs[index]--;
    atomic_fetch_add(&hanging, 1);
    while (let_gos[index] < until) pthread_cond_wait(&changed, &lock);
    atomic_fetch_sub(&hanging, 1);
  }
  if (failures[index] && successes[index]-- <= 0) {
    code = failure[index];
    if (failures[index] > 0) failures[index]--;
  }
  pthread_mutex_unlock(&lock);
  return code;
}

static int is_of_slot(int index) {
  return (index >= GET_SLOT_INFO && index <= INIT_TOKEN) || index == OPEN_SESSION || index == CLOSE_ALL_SESSIONS;
}

static int is_of_session(int index) {
  return index == CLOSE_SESSION || (index >= FIRST_OF_A_SESSION && index <= LAST_OF_A_SESSION);
}

static void spoil_point(attribute *attributes, CK count) {
  for (CK i = 0; i < count; i++) {
    attribute *point = &attributes[i];
    CK cut = point_form == 1 ? 2 : 3;         /* without the OCTET STRING; without the 04 too */
    if (point->type == CKA_EC_POINT && point->length != (CK)-1 && point->value && point->length > cut) {
      memmove(point->value, (char *)point->value + cut, point->length - cut);
      point->length -= cut;
    }
  }
}

static CK forward(int index, CK a, CK b, CK c, CK d, CK e, CK f, CK g, CK h) {
  atomic_fetch_add(&calls[index], 1);
  if (index == FINALIZE && atomic_load(&inside) != 0) atomic_fetch_add(&violations, 1);
  atomic_fetch_add(&inside, 1);
  atomic_char *session = is_of_session(index) ? &busy[a % SESSIONS] : NULL;
  if (session && atomic_exchange(session, 1)) atomic_fetch_add(&violations, 1);
  CK code = take_failure(index);
  if (!code && was_out && index > INITIALIZE && index != FINALIZE && index != GET_SLOT_LIST) code = CKR_DEVICE_REMOVED;
  if (!code && is_out && is_of_session(index)) code = CKR_DEVICE_REMOVED;
  if (index == INITIALIZE) { was_out = is_out; shift = next_shift; }
  if (!code && index == GET_SLOT_LIST && (was_out || is_out)) {
    *(CK *)c = 0;
  } else if (!code) {
    code = ((function)real->functions[index])(is_of_slot(index) ? a - shift : a, b, c, d, e, f, g, h);
    if (!code && index == GET_SLOT_LIST && b)
      for (CK i = 0; i < *(CK *)c; i++) ((CK *)b)[i] += shift;
    if (!code && index == GET_TOKEN_INFO) *(CK *)((char *)b + FLAGS_OF_TOKEN_INFO) |= token_flags;
    if (index == GET_ATTRIBUTE_VALUE && point_form) spoil_point((attribute *)c, d);
  }
  if (session) atomic_store(session, 0);
  atomic_fetch_sub(&inside, 1);
  return code;
}

#define W(i) static CK w##i(CK a, CK b, CK c, CK d, CK e, CK f, CK g, CK h) { return forward(i, a, b, c, d, e, f, g, h); }
#define TEN(M, t) M(t##0) M(t##1) M(t##2) M(t##3) M(t##4) M(t##5) M(t##6) M(t##7) M(t##8) M(t##9)
#define ALL(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) TEN(M, 1) TEN(M, 2) TEN(M, 3) TEN(M, 4) TEN(M, 5) \
  M(60) M(61) M(62) M(63) M(64) M(65) M(66) M(67)
ALL(W)

/* Without a real module C_GetFunctionList fails. */
int fake_wrap(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  CK (*get)(function_list **) = library ? (CK (*)(function_list **))dlsym(library, "C_GetFunctionList") : NULL;
#define F(i) ours.functions[i] = (void *)w##i;
  ALL(F)
  return get && get(&real) == 0 ? 0 : -1;
}

CK C_GetFunctionList(function_list **list) {
  *list = &ours;
  return real ? 0 : 5;
}

void fake_fail(int index, CK code, long times, long after) {
  pthread_mutex_lock(&lock);
  failure[index] = code;
  failures[index] = times;
  successes[index] = after;
  pthread_mutex_unlock(&lock);
}

void fake_hang(int index, long calls_to_come, long after) {
  pthread_mutex_lock(&lock);
  hangs[index] = calls_to_come;
  passes[index] = after;
  if (!calls_to_come) let_gos[index]++;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

/* Removes or inserts the token. A module that was initialised without it does not notice that it returns. */
void fake_pull_out(int does) { is_out = does; if (does) was_out = 1; }
void fake_move_slots(CK by) { next_shift = by; }
void fake_set_token_flags(CK flags) { token_flags = flags; }
void fake_spoil_points(int form) { point_form = form; }
void fake_leave_out(int index) { ours.functions[index] = NULL; }
long fake_calls(int index) { return atomic_load(&calls[index]); }
long fake_hanging(void) { return atomic_load(&hanging); }
long fake_violations(void) { return atomic_load(&violations); }
