/* Several sessions in one step, sessions that guess ahead, processors to run on; and all of it wrongly. */
#include "smoke.h"
#include <stddef.h>
#include <string.h>

#define MANY 70 /* more than are stepped without an allocation */
#define STEPS 5

static uint32_t ids[200];

static inlaid_session *begin(const inlaid_model *model, const inlaid_session_config *config, size_t n) {
    inlaid_error err;
    inlaid_session *session = NULL;
    inlaid_error_init(&err, sizeof err);
    OK(inlaid_session_new(model, config, &session, &err));
    if (n > 0) OK(inlaid_session_resume(session, ids + n % 7, n, NULL, &err));
    return session;
}

static int same_logits(inlaid_session *a, inlaid_session *b) {
    const float *x = NULL, *y = NULL;
    size_t n = 0, m = 1;
    return inlaid_session_logits(a, &x, &n, NULL) == INLAID_OK && inlaid_session_logits(b, &y, &m, NULL) == INLAID_OK &&
           n == m && memcmp(x, y, n * sizeof *x) == 0;
}

/* Each session of a batch gets the bits of one that steps alone, in a model of its own. */
static void together(const inlaid_model *model, const inlaid_model *apart, size_t count, size_t rows) {
    inlaid_error err;
    inlaid_session *some[MANY], *alone[MANY];
    uint32_t out[MANY], id;
    int32_t statuses[MANY];
    inlaid_session_config config;
    size_t i, done[MANY], left = count;
    inlaid_error_init(&err, sizeof err);
    inlaid_session_config_init(&config, sizeof config);
    config.context = 250;
    for (i = 0; i < count; i++) {
        some[i] = begin(model, &config, 1 + (i * 31) % 150);
        alone[i] = begin(apart, &config, 1 + (i * 31) % 150);
        done[i] = 0;
    }
    while (left > 0) {
        OK(inlaid_batch_step(some, count, rows, out, statuses, &err));
        for (i = 0; i < count; i++) {
            CHECK(statuses[i] == INLAID_OK);
            CHECK(rows != 0 || out[i] != INLAID_NO_TOKEN);
            if (out[i] == INLAID_NO_TOKEN) continue;
            OK(inlaid_session_step(alone[i], &id, &err));
            CHECK(out[i] == id);
            if (++done[i] == STEPS) left--;
        }
    }
    for (i = 0; i < count; i++) {
        CHECK(same_logits(some[i], alone[i]));
        inlaid_session_free(some[i]);
        inlaid_session_free(alone[i]);
    }
}

static void one_by_one(const inlaid_model *model, const inlaid_model *apart) {
    inlaid_error err;
    inlaid_session_config config;
    inlaid_session *some[4], *twice[2];
    uint32_t out[4] = {1, 2, 3, 4}, id = 0;
    int32_t statuses[4];
    size_t n = 0, i;
    inlaid_error_init(&err, sizeof err);
    inlaid_session_config_init(&config, sizeof config);
    config.context = 64;
    some[0] = begin(model, NULL, 10);
    some[1] = begin(model, &config, 64); /* full */
    some[2] = begin(model, NULL, 0);     /* nothing was fed */
    some[3] = begin(model, NULL, 20);
    inlaid_session_cancel(some[3]);
    EXPECT(INLAID_ERROR_CONTEXT_FULL, inlaid_batch_step(some, 4, 0, out, statuses, &err));
    CHECK(statuses[0] == INLAID_OK && statuses[1] == INLAID_ERROR_CONTEXT_FULL);
    CHECK(statuses[2] == INLAID_ERROR_ARGUMENT && statuses[3] == INLAID_ERROR_CANCELLED);
    CHECK(out[0] != INLAID_NO_TOKEN && out[1] == INLAID_NO_TOKEN && out[2] == INLAID_NO_TOKEN);
    OK(inlaid_session_len(some[0], &n, &err));
    CHECK(n == 11);
    EXPECT(INLAID_ERROR_CONTEXT_FULL, inlaid_batch_step(some + 1, 1, 0, out, NULL, &err));
    OK(inlaid_batch_step(some + 3, 1, 0, out, NULL, &err)); /* the cancel ended one call */
    OK(inlaid_session_len(some[3], &n, &err));
    CHECK(n == 21);

    /* What no batch can be made of changes nothing. */
    twice[0] = twice[1] = some[0];
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_batch_step(twice, 2, 0, out, statuses, &err));
    SAYS("number 0 again at 1");
    CHECK(statuses[0] == INLAID_ERROR_ARGUMENT && statuses[1] == INLAID_ERROR_ARGUMENT);
    twice[1] = begin(apart, NULL, 10);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_batch_step(twice, 2, 0, out, statuses, &err));
    SAYS("another one's at 1");
    inlaid_session_free(twice[1]);
    twice[1] = NULL;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_batch_step(twice, 2, 0, out, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_batch_step(NULL, 2, 0, out, statuses, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_batch_step(some, 1, 0, NULL, statuses, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_batch_step(some, 1025, 0, out, statuses, &err));
    OK(inlaid_batch_step(NULL, 0, 0, NULL, NULL, &err));
    OK(inlaid_session_len(some[0], &n, &err));
    CHECK(n == 11);
    OK(inlaid_session_step(some[0], &id, &err));
    for (i = 0; i < 4; i++) inlaid_session_free(some[i]);
}

static inlaid_session *used;
static int32_t found[2];

static int32_t within(void *user, const char *text, size_t len, uint32_t id) {
    uint32_t out[2];
    inlaid_session *some[2];
    (void)text, (void)len, (void)id;
    some[0] = used;
    some[1] = user;
    CHECK(inlaid_batch_step(some, 2, 0, out, found, NULL) == INLAID_ERROR_BUSY);
    CHECK(out[0] == INLAID_NO_TOKEN && out[1] != INLAID_NO_TOKEN);
    return 1;
}

/* A session that another call uses is left out. */
static void busy(const inlaid_model *speaks) {
    inlaid_error err;
    inlaid_session *other = begin(speaks, NULL, 5);
    inlaid_error_init(&err, sizeof err);
    used = begin(speaks, NULL, 5);
    OK(inlaid_generate(used, NULL, within, other, NULL, NULL, &err));
    CHECK(found[0] == INLAID_ERROR_BUSY && found[1] == INLAID_OK);
    inlaid_session_free(used);
    inlaid_session_free(other);
}

/* Guesses change no token and no bit. */
static void guesses(const inlaid_model *model, const inlaid_model *apart, const inlaid_model *speaks) {
    inlaid_error err;
    inlaid_session_config config;
    inlaid_session *plain, *guesser, *none = NULL;
    inlaid_timings timings;
    uint32_t a = 0, b = 0;
    int kind, i;
    inlaid_error_init(&err, sizeof err);
    inlaid_session_config_init(&config, sizeof config);
    CHECK(config.speculate == 0 && config.draft == NULL);
    for (kind = 0; kind < 2; kind++) {
        config.speculate = 4;
        config.draft = kind == 0 ? NULL : apart;
        guesser = begin(model, &config, 60);
        plain = begin(apart, NULL, 60);
        for (i = 0; i < 60; i++) {
            OK(inlaid_session_step(plain, &a, &err));
            OK(inlaid_session_step(guesser, &b, &err));
            CHECK(a == b);
        }
        CHECK(same_logits(plain, guesser));
        timings.struct_size = sizeof timings;
        OK(inlaid_session_timings(guesser, &timings, &err));
        CHECK(timings.accepted_tokens <= timings.drafted_tokens);
        CHECK(kind == 0 || (timings.drafted_tokens > 0 && timings.accepted_tokens == timings.drafted_tokens));
        inlaid_session_free(plain);
        inlaid_session_free(guesser);
    }
    config.speculate = 17;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_new(model, &config, &none, &err));
    SAYS("from 1 to 16");
    config.speculate = 0;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_new(model, &config, &none, &err));
    config.draft = NULL;
    config.ignore_rules = 2;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_new(model, &config, &none, &err));
    SAYS("ignore_rules");
    /* A program that was built before there were guesses has a shorter struct. */
    config.struct_size = (uint32_t)offsetof(inlaid_session_config, speculate);
    OK(inlaid_session_new(speaks, &config, &none, &err));
    inlaid_session_free(none);
    timings.struct_size = (uint32_t)offsetof(inlaid_timings, draft_us);
    timings.draft_us = 77;
    plain = begin(model, NULL, 3);
    OK(inlaid_session_timings(plain, &timings, &err));
    CHECK(timings.draft_us == 77);
    inlaid_session_free(plain);
}

static void cores(void) {
    inlaid_error err;
    inlaid_engine_config config;
    inlaid_engine *engine = NULL;
    uint32_t list[2] = {4000000, 4000};
    inlaid_error_init(&err, sizeof err);
    inlaid_engine_config_init(&config, sizeof config);
    CHECK(config.cores == NULL && config.n_cores == 0);
    config.cores = list;
    config.n_cores = 2;
#ifdef __linux__
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_new(&config, &engine, &err));
    SAYS("processor");
#else
    EXPECT(INLAID_ERROR_UNSUPPORTED, inlaid_engine_new(&config, &engine, &err));
#endif
    config.cores = NULL;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_engine_new(&config, &engine, &err));
    config.struct_size = (uint32_t)offsetof(inlaid_engine_config, cores);
    OK(inlaid_engine_new(&config, &engine, &err));
    inlaid_engine_free(engine);
}

void batches(const char *path, const char *textless) {
    inlaid_engine *engine, *engines[2];
    inlaid_model *model, *apart, *speaks;
    size_t i;
    for (i = 0; i < 200; i++) ids[i] = (uint32_t)(i * i * 7 + 3 * i + 1) % 300;
    open_model(textless, &engine, &model);
    open_model(textless, &engines[0], &apart);
    open_model(path, &engines[1], &speaks);
    together(model, apart, 1, 0);
    together(model, apart, 5, 0);
    together(model, apart, 9, 16);
    together(model, apart, MANY, 0);
    one_by_one(model, apart);
    busy(speaks);
    guesses(model, apart, speaks);
    cores();
    inlaid_model_free(model);
    inlaid_model_free(apart);
    inlaid_model_free(speaks);
    inlaid_engine_free(engine);
    inlaid_engine_free(engines[0]);
    inlaid_engine_free(engines[1]);
}
