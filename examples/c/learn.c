// A policy learns to end its answers soon, in pieces of two milliseconds, while a session of the same model goes on; at last the
// session is given what was learnt. learn MODEL [ROUNDS]
#include <inlaid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWERS = 4, TOKENS = 12 };

static int report(const inlaid_error *err) {
    fprintf(stderr, "%s: %s\n", inlaid_status_name(err->status), err->message);
    return 1;
}

// What answers are worth: the shorter, the more.
static int32_t score(inlaid_trainer *trainer, inlaid_error *err) {
    float rewards[ANSWERS];
    uint32_t ids[TOKENS];
    size_t i, n = 0;
    for (i = 0; i < ANSWERS; i++) {
        int32_t status = inlaid_ppo_answer(trainer, i, ids, TOKENS, &n, err);
        if (status) return status;
        rewards[i] = 1.0f - (float)n / TOKENS;
    }
    return inlaid_ppo_set_rewards(trainer, rewards, ANSWERS, err);
}

static int32_t round_of(inlaid_trainer *trainer, const uint32_t *ids, const size_t *lens, inlaid_error *err) {
    int32_t progress = INLAID_PPO_MORE, status = inlaid_ppo_begin(trainer, ids, lens, ANSWERS, err);
    while (!status && progress != INLAID_PPO_DONE) {
        // Between two pieces a game would draw a frame.
        status = inlaid_ppo_advance(trainer, 2000, &progress, err);
        if (!status && progress == INLAID_PPO_REWARDS) status = score(trainer, err);
    }
    return status;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "model", *prompt = "Once upon a time";
    const int rounds = argc > 2 ? atoi(argv[2]) : 2;
    inlaid_engine *engine = NULL;
    inlaid_model *model = NULL;
    inlaid_trainer *trainer = NULL;
    inlaid_adapter *adapter = NULL;
    inlaid_session *session = NULL;
    inlaid_train_config learn;
    inlaid_ppo_config config;
    inlaid_ppo_stats stats = {0};
    uint32_t ids[ANSWERS * 16], next = 0;
    size_t lens[ANSWERS], n = 0;
    inlaid_error err;
    inlaid_error_init(&err, sizeof err);
    inlaid_train_config_init(&learn, sizeof learn);
    inlaid_ppo_config_init(&config, sizeof config);
    learn.learn = INLAID_LEARN_LORA;
    config.max_tokens = TOKENS;
    config.rate = 1e-3f;
    stats.struct_size = sizeof stats;

    int failed = inlaid_engine_new(NULL, &engine, &err) || inlaid_model_open(engine, path, NULL, &model, &err) ||
                 inlaid_tokenize(model, prompt, strlen(prompt), INLAID_ADD_SPECIAL, ids, 16, &n, &err) ||
                 inlaid_session_new(model, NULL, &session, &err) ||
                 inlaid_ppo_new(model, &learn, &config, &trainer, &err);
    for (int i = 0; i < ANSWERS && !failed; i++) {
        memmove(ids + (size_t)i * n, ids, n * sizeof *ids);
        lens[i] = n;
    }
    for (int round = 0; round < rounds && !failed; round++) {
        failed = round_of(trainer, ids, lens, &err) || inlaid_ppo_get_stats(trainer, &stats, &err);
        if (!failed) printf("round %d: reward %.3f, KL %.3f\n", round + 1, stats.reward, stats.kl);
    }
    // Sessions see what was learnt when, and only when, the host says so.
    const inlaid_adapter *list[1];
    failed = failed || inlaid_trainer_adapter(trainer, &adapter, &err);
    list[0] = adapter;
    failed = failed || inlaid_session_set_adapters(session, list, NULL, 1, &err) ||
             inlaid_session_prefill(session, ids, n, &err) || inlaid_session_step(session, &next, &err);
    if (!failed) printf("the session goes on with token %u\n", next);

    if (failed) report(&err);
    inlaid_session_free(session); // any order
    inlaid_adapter_free(adapter);
    inlaid_trainer_free(trainer);
    inlaid_model_free(model);
    inlaid_engine_free(engine);
    return failed;
}
