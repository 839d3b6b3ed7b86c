/* Sessions: feeding, choosing, numbers, moving back, forking; and all of it again wrongly. */
#include "smoke.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>

#define N 70 /* more than one page of the cache */

static uint32_t ids[N];

static inlaid_session *begin(const inlaid_model *model, const inlaid_session_config *config) {
    inlaid_error err;
    inlaid_session *session = NULL;
    inlaid_error_init(&err, sizeof err);
    OK(inlaid_session_new(model, config, &session, &err));
    return session;
}

/* Logits have the same bits in one prefill, in pieces, step by step, and in a fork. */
static void numbers(const inlaid_model *model, size_t vocab) {
    inlaid_error err;
    inlaid_session *a = begin(model, NULL), *b = begin(model, NULL), *fork = NULL;
    const float *logits = NULL;
    float *all = malloc(N * vocab * sizeof *all), scores[N];
    uint32_t top[4];
    float logprobs[4];
    size_t n = 0, i, best = 0;
    inlaid_error_init(&err, sizeof err);

    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_logits(a, &logits, &n, &err));
    EXPECT(INLAID_ERROR_BUFFER, inlaid_session_prefill_all(a, ids, N, all, N * vocab - 1, &err));
    OK(inlaid_session_len(a, &n, &err));
    CHECK(n == 0);
    OK(inlaid_session_prefill_all(a, ids, N, all, N * vocab, &err));
    OK(inlaid_session_prefill(b, ids, 3, &err));
    OK(inlaid_session_logits(b, &logits, &n, &err));
    CHECK(n == vocab && memcmp(logits, all + 2 * vocab, n * sizeof *logits) == 0);
    for (i = 3; i < N - 1; i++) OK(inlaid_session_accept(b, ids[i], &err));
    OK(inlaid_session_fork(b, &fork, &err));
    OK(inlaid_session_accept(b, ids[N - 1], &err));
    OK(inlaid_session_logits(b, &logits, &n, &err));
    CHECK(memcmp(logits, all + (N - 1) * vocab, n * sizeof *logits) == 0);
    inlaid_session_free(b);
    OK(inlaid_session_prefill(fork, &ids[N - 1], 1, &err));
    OK(inlaid_session_logits(fork, &logits, &n, &err));
    CHECK(memcmp(logits, all + (N - 1) * vocab, n * sizeof *logits) == 0);

    for (i = 0; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    OK(inlaid_session_top_logprobs(fork, 4, top, logprobs, &n, &err));
    CHECK(n == 4 && top[0] == best && logprobs[0] < 0 && logprobs[0] >= logprobs[1]);
    OK(inlaid_session_top_logprobs(fork, 0, NULL, NULL, &n, &err));
    CHECK(n == 0);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_top_logprobs(fork, 4, NULL, logprobs, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_top_logprobs(fork, 4, top, NULL, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_top_logprobs(fork, 4, top, logprobs, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_top_logprobs(NULL, 4, top, logprobs, &n, &err));

    OK(inlaid_session_rewind(fork, 0, &err));
    EXPECT(INLAID_ERROR_BUFFER, inlaid_session_score(fork, ids, N, scores, N - 2, &n, &err));
    OK(inlaid_session_score(fork, ids, N, scores, N - 1, &n, &err));
    CHECK(n == N - 1);
    OK(inlaid_session_rewind(fork, 5, &err));
    OK(inlaid_session_score(fork, ids + 5, 2, logprobs, 4, &n, &err));
    CHECK(n == 2 && logprobs[1] == scores[5]);
    /* The first one comes from logits that were there: its sum over the vocabulary has another order. Each of the sums
       has `vocab` terms of one rounding, at worst one after the other, and the result is rounded once more. */
    CHECK(fabsf(logprobs[0] - scores[4]) <= FLT_EPSILON * ((float)vocab + fabsf(scores[4])));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_score(fork, ids, 1, scores, N, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_score(fork, NULL, 1, scores, N, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_score(NULL, ids, 1, scores, N, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_prefill_all(fork, ids, 1, NULL, vocab, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_prefill_all(NULL, ids, 1, all, vocab, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_logits(fork, NULL, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_logits(fork, &logits, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_logits(NULL, &logits, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_fork(fork, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_fork(NULL, &b, &err));
    inlaid_session_free(fork);
    inlaid_session_free(a);
    free(all);
}

static void moves(const inlaid_model *model, uint32_t vocab) {
    inlaid_error err;
    inlaid_session *session = begin(model, NULL);
    inlaid_timings timings;
    uint32_t held[N], id = 0, other[4] = {0, 0, 0, 0};
    size_t n = 0, reused = 0;
    inlaid_error_init(&err, sizeof err);

    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_step(session, &id, &err));
    OK(inlaid_session_prefill(session, ids, 10, &err));
    OK(inlaid_session_step(session, &id, &err));
    CHECK(id < vocab);
    OK(inlaid_session_tokens(session, NULL, 0, &n, &err));
    CHECK(n == 11);
    EXPECT(INLAID_ERROR_BUFFER, inlaid_session_tokens(session, held, 10, &n, &err));
    OK(inlaid_session_tokens(session, held, N, &n, &err));
    CHECK(n == 11 && memcmp(held, ids, 10 * sizeof *ids) == 0 && held[10] == id);
    memcpy(other, ids, 3 * sizeof *ids);
    other[3] = (ids[3] + 1) % vocab;
    OK(inlaid_session_resume(session, other, 4, &reused, &err));
    CHECK(reused == 3);
    OK(inlaid_session_resume(session, other, 4, NULL, &err));
    OK(inlaid_session_len(session, &n, &err));
    CHECK(n == 4);
    OK(inlaid_session_context(session, &n, &err));
    CHECK(n > N);
    OK(inlaid_session_rewind(session, 4, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_rewind(session, 5, &err));
    memset(&timings, 0x55, sizeof timings);
    timings.struct_size = sizeof timings;
    OK(inlaid_session_timings(session, &timings, &err));
    CHECK(timings.prefill_tokens == 10 && timings.sampled_tokens == 1 && timings.prefill_us > 0);
    timings.struct_size = 5;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_timings(session, &timings, &err));

    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_prefill(session, &vocab, 1, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_prefill(session, NULL, 1, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_prefill(NULL, ids, 1, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_accept(session, vocab, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_accept(NULL, 0, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_resume(session, &vocab, 1, &reused, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_resume(NULL, ids, 1, &reused, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_step(session, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_step(NULL, &id, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_tokens(session, held, N, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_tokens(NULL, held, N, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_len(session, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_len(NULL, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_context(NULL, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_rewind(NULL, 0, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_timings(session, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_timings(NULL, &timings, &err));
    OK(inlaid_session_len(session, &n, &err));
    CHECK(n == 4); /* none of them changed anything */

    /* A cancel before a call ends that call, and only that one. */
    inlaid_session_cancel(NULL);
    inlaid_session_cancel(session);
    EXPECT(INLAID_ERROR_CANCELLED, inlaid_session_prefill(session, ids, 5, &err));
    OK(inlaid_session_len(session, &n, &err));
    CHECK(n == 4);
    OK(inlaid_session_prefill(session, ids, 5, &err));
    inlaid_session_free(session);
}

static void settings(const inlaid_model *model) {
    inlaid_error err;
    inlaid_session_config config;
    inlaid_sampler sampler;
    inlaid_session *session = NULL;
    uint32_t banned[2], id = 0, first = 0, i;
    float bias[2] = {1, -INFINITY};
    inlaid_error_init(&err, sizeof err);

    CHECK(inlaid_sampler_init(&sampler, sizeof sampler) == INLAID_OK);
    CHECK(inlaid_sampler_init(&sampler, 3) == INLAID_ERROR_ARGUMENT);
    CHECK(inlaid_sampler_init(NULL, sizeof sampler) == INLAID_ERROR_ARGUMENT);
    CHECK(inlaid_session_config_init(&config, sizeof config) == INLAID_OK);
    CHECK(inlaid_session_config_init(&config, 3) == INLAID_ERROR_ARGUMENT);
    CHECK(inlaid_session_config_init(NULL, sizeof config) == INLAID_ERROR_ARGUMENT);
    CHECK(sampler.temperature == 0 && sampler.top_p == 1 && sampler.repetition_penalty == 1);

    config.context = 16;
    config.chunk = 4;
    config.sampler = &sampler;
    session = begin(model, &config);
    EXPECT(INLAID_ERROR_CONTEXT_FULL, inlaid_session_prefill(session, ids, 17, &err));
    SAYS("16");
    OK(inlaid_session_prefill(session, ids, 8, &err));
    OK(inlaid_session_step(session, &first, &err));
    banned[0] = banned[1] = first;
    sampler.n_logit_bias = 2;
    sampler.logit_bias_ids = banned;
    sampler.logit_bias = bias;
    OK(inlaid_session_rewind(session, 8, &err));
    OK(inlaid_session_set_sampler(session, &sampler, &err));
    OK(inlaid_session_step(session, &id, &err));
    CHECK(id != first);
    sampler.top_p = 2;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_set_sampler(session, &sampler, &err));
    SAYS("top_p");
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_set_sampler(NULL, NULL, &err));
    OK(inlaid_session_rewind(session, 8, &err));
    OK(inlaid_session_set_sampler(session, NULL, &err));
    OK(inlaid_session_step(session, &id, &err));
    CHECK(id == first);
    for (i = 0; i < 7; i++) OK(inlaid_session_step(session, &id, &err));
    EXPECT(INLAID_ERROR_CONTEXT_FULL, inlaid_session_step(session, &id, &err));
    inlaid_session_free(session);

    config.overflow = INLAID_OVERFLOW_DROP_OLDEST;
    config.keep = 2;
    config.sampler = NULL;
    session = begin(model, &config);
    OK(inlaid_session_prefill(session, ids, 16, &err));
    for (i = 0; i < 20; i++) OK(inlaid_session_step(session, &id, &err));
    inlaid_session_free(session);

    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_new(model, &config, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_new(NULL, &config, &session, &err));
    CHECK(session != NULL);
    config.keep = 16;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_new(model, &config, &session, &err));
    CHECK(session == NULL);
    config.overflow = 5;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_new(model, &config, &session, &err));
    config.overflow = INLAID_OVERFLOW_STOP;
    config.reserved = 1;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_new(model, &config, &session, &err));
    config.reserved = 0;
    config.context = 1000000000;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_new(model, &config, &session, &err));
}

/* Every order of frees. */
static void orders(const char *path) {
    static const int order[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    inlaid_engine *engine;
    inlaid_model *model;
    inlaid_session *session;
    inlaid_error err;
    int i, j;
    inlaid_error_init(&err, sizeof err);
    for (i = 0; i < 6; i++) {
        open_model(path, &engine, &model);
        session = begin(model, NULL);
        for (j = 0; j < 3; j++) {
            if (order[i][j] == 0) inlaid_engine_free(engine);
            if (order[i][j] == 1) inlaid_model_free(model);
            if (order[i][j] == 2) {
                OK(inlaid_session_prefill(session, ids, 2, &err));
                inlaid_session_retain(session);
                inlaid_session_free(session);
                OK(inlaid_session_prefill(session, ids, 2, &err));
                inlaid_session_free(session);
            }
        }
    }
    inlaid_session_retain(NULL);
    inlaid_session_free(NULL);
}

void sessions(const char *path) {
    inlaid_error err;
    inlaid_engine *engine;
    inlaid_model *model;
    inlaid_model_info info;
    size_t i;
    inlaid_error_init(&err, sizeof err);
    open_model(path, &engine, &model);
    info.struct_size = sizeof info;
    OK(inlaid_model_get_info(model, &info, &err));
    for (i = 0; i < N; i++) ids[i] = (uint32_t)(i * i * 7 + 3 * i + 1) % info.vocab;
    numbers(model, info.vocab);
    moves(model, info.vocab);
    settings(model);
    inlaid_model_free(model);
    inlaid_engine_free(engine);
    orders(path);
}
