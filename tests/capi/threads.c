/* Several threads: one session in use, a cancel from outside, frees while a call runs, sessions side by side. */
#include "smoke.h"
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#define LONG 6000 /* tokens whose prefill lasts far longer than it takes to notice it */
#define SIDES 4

struct job {
    inlaid_session *session;
    const uint32_t *ids;
    size_t n;
    int32_t status;
    uint32_t out[8];
};

static void *prefill(void *arg) {
    struct job *job = arg;
    job->status = inlaid_session_prefill(job->session, job->ids, job->n, NULL);
    return NULL;
}

/* Waits until a call runs on the session: then all others are refused, at once. */
static int wait_busy(inlaid_session *session) {
    struct timespec pause = {0, 1000000};
    size_t n;
    int i;
    for (i = 0; i < 60000; i++) {
        if (inlaid_session_len(session, &n, NULL) == INLAID_ERROR_BUSY) return 1;
        nanosleep(&pause, NULL);
    }
    return 0;
}

static void busy_and_cancel(const inlaid_model *model, const uint32_t *ids) {
    inlaid_error err;
    inlaid_session_config config;
    inlaid_session *session = NULL;
    pthread_t thread;
    struct job job;
    uint32_t id;
    size_t n = 0;
    inlaid_error_init(&err, sizeof err);
    inlaid_session_config_init(&config, sizeof config);
    config.context = LONG + 64;
    OK(inlaid_session_new(model, &config, &session, &err));
    OK(inlaid_session_prefill(session, ids, 3, &err));
    job.session = session;
    job.ids = ids;
    job.n = LONG;
    CHECK(pthread_create(&thread, NULL, prefill, &job) == 0);
    CHECK(wait_busy(session));
    EXPECT(INLAID_ERROR_BUSY, inlaid_session_step(session, &id, &err));
    EXPECT(INLAID_ERROR_BUSY, inlaid_session_rewind(session, 0, &err));
    inlaid_session_cancel(session);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(job.status == INLAID_ERROR_CANCELLED);
    OK(inlaid_session_len(session, &n, &err));
    CHECK(n == 3);
    OK(inlaid_session_step(session, &id, &err));
    inlaid_session_free(session);
}

static void free_while_running(const inlaid_model *model, const uint32_t *ids) {
    inlaid_error err;
    inlaid_session_config config;
    inlaid_session *session = NULL;
    pthread_t thread;
    struct job job;
    inlaid_error_init(&err, sizeof err);
    inlaid_session_config_init(&config, sizeof config);
    config.context = LONG + 64;
    OK(inlaid_session_new(model, &config, &session, &err));
    job.session = session;
    job.ids = ids;
    job.n = LONG;
    CHECK(pthread_create(&thread, NULL, prefill, &job) == 0);
    CHECK(wait_busy(session));
    inlaid_session_cancel(session);
    inlaid_session_free(session); /* the last reference of ours; the call has one of its own */
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(job.status == INLAID_ERROR_CANCELLED);
}

static void *side(void *arg) {
    struct job *job = arg;
    size_t i;
    job->status = inlaid_session_prefill(job->session, job->ids, job->n, NULL);
    for (i = 0; i < 8 && job->status == INLAID_OK; i++)
        job->status = inlaid_session_step(job->session, &job->out[i], NULL);
    return NULL;
}

/* Sessions of one model on several threads say what one alone says. */
static void side_by_side(const inlaid_model *model, const uint32_t *ids) {
    inlaid_error err;
    struct job alone, jobs[SIDES];
    pthread_t thread[SIDES];
    int i;
    inlaid_error_init(&err, sizeof err);
    memset(&alone, 0, sizeof alone);
    alone.ids = ids;
    alone.n = 100;
    OK(inlaid_session_new(model, NULL, &alone.session, &err));
    side(&alone);
    CHECK(alone.status == INLAID_OK);
    for (i = 0; i < SIDES; i++) {
        jobs[i] = alone;
        OK(inlaid_session_new(model, NULL, &jobs[i].session, &err));
    }
    for (i = 0; i < SIDES; i++) CHECK(pthread_create(&thread[i], NULL, side, &jobs[i]) == 0);
    for (i = 0; i < SIDES; i++) {
        CHECK(pthread_join(thread[i], NULL) == 0);
        CHECK(jobs[i].status == INLAID_OK && memcmp(jobs[i].out, alone.out, sizeof alone.out) == 0);
        inlaid_session_free(jobs[i].session);
    }
    inlaid_session_free(alone.session);
}

void threads(const char *path) {
    inlaid_engine *engine;
    inlaid_model *model;
    inlaid_model_info info;
    uint32_t *ids = malloc(LONG * sizeof *ids);
    size_t i;
    open_model(path, &engine, &model);
    info.struct_size = sizeof info;
    CHECK(inlaid_model_get_info(model, &info, NULL) == INLAID_OK);
    for (i = 0; i < LONG; i++) ids[i] = (uint32_t)(i * i + 5 * i) % info.vocab;
    busy_and_cancel(model, ids);
    free_while_running(model, ids);
    side_by_side(model, ids);
    inlaid_model_free(model);
    inlaid_engine_free(engine);
    free(ids);
}
