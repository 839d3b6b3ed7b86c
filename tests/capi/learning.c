/* Trainers: steps, rewards, checkpoints; and all of it wrongly. */
#include "smoke.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

#define PROMPTS 3

static const uint32_t ids[] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static inlaid_example example(size_t n, size_t first, uint32_t group) {
    inlaid_example one;
    memset(&one, 0, sizeof one);
    one.ids = ids, one.n = n, one.first = first, one.group = group;
    return one;
}

static void steps(const inlaid_model *model, const char *source, const char *dir) {
    inlaid_error err;
    inlaid_trainer *trainer = NULL, *again = NULL;
    inlaid_train_config config;
    inlaid_train_report report = {0};
    inlaid_adapter *adapter = NULL;
    char out[1024];
    double first = 0;
    int i;
    inlaid_example some[2];
    inlaid_error_init(&err, sizeof err);
    some[0] = example(10, 3, 0), some[1] = example(6, 1, 1);
    report.struct_size = sizeof report;

    CHECK(inlaid_train_config_init(&config, sizeof config) == INLAID_OK);
    OK(inlaid_trainer_new(model, NULL, &trainer, &err));
    for (i = 0; i < 4; i++) {
        OK(inlaid_trainer_step(trainer, some, 2, 1e-3f, &report, &err));
        if (i == 0) first = report.loss;
    }
    CHECK(report.step == 4 && report.loss < first && report.tokens == 14 && report.grad_norm > 0);
    OK(inlaid_trainer_checkpoint(trainer, dir, &err));
    OK(inlaid_trainer_new(model, NULL, &again, &err));
    OK(inlaid_trainer_restore(again, dir, &err));
    OK(inlaid_trainer_step(trainer, some, 2, 1e-3f, &report, &err));
    first = report.loss;
    OK(inlaid_trainer_step(again, some, 2, 1e-3f, &report, &err));
    CHECK(report.loss == first && report.step == 5);
    snprintf(out, sizeof out, "%s/model", dir);
    OK(inlaid_trainer_save(trainer, source, out, &err));
    EXPECT(INLAID_ERROR_IO, inlaid_trainer_save(trainer, source, out, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_save(trainer, NULL, dir, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_adapter(trainer, &adapter, &err));
    CHECK(adapter == NULL);
    snprintf(out, sizeof out, "%s/nothing", dir);
    EXPECT(INLAID_ERROR_IO, inlaid_trainer_restore(again, out, &err));

    some[0] = example(10, 0, 0);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_step(trainer, some, 1, 1e-3f, NULL, &err));
    some[0] = example(10, 10, 0);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_step(trainer, some, 1, 1e-3f, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_step(trainer, NULL, 0, 1e-3f, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_step(trainer, some, 1, -1.0f, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_step(NULL, some, 1, 1e-3f, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_ppo_begin(trainer, ids, NULL, 0, &err));
    inlaid_trainer_cancel(trainer);
    some[0] = example(10, 3, 0);
    EXPECT(INLAID_ERROR_CANCELLED, inlaid_trainer_step(trainer, some, 1, 1e-3f, NULL, &err));
    OK(inlaid_trainer_step(trainer, some, 1, 1e-3f, NULL, &err));
    inlaid_trainer_free(again);
    config.objective = 7;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_new(model, &config, &again, &err));
    CHECK(again == NULL);
    inlaid_trainer_free(trainer);
    inlaid_trainer_free(NULL);
    inlaid_trainer_cancel(NULL);
}

static void kinds(const inlaid_model *model, const char *dir) {
    static const char *const targets[] = {"v_proj", "down_proj"};
    const int32_t all[] = {INLAID_LEARN_DORA, INLAID_LEARN_IA3, INLAID_LEARN_PROMPT, INLAID_LEARN_PREFIX, INLAID_LEARN_BOTTLENECK};
    inlaid_error err;
    inlaid_train_config config;
    inlaid_train_report report = {0};
    inlaid_trainer *trainer = NULL;
    inlaid_adapter *adapter = NULL;
    inlaid_example one = example(10, 3, 0);
    char out[1024];
    double first = 0;
    size_t i;
    int step;
    inlaid_error_init(&err, sizeof err);
    report.struct_size = sizeof report;
    CHECK(inlaid_train_config_init(&config, sizeof config) == INLAID_OK);
    config.virtual_tokens = 3, config.prompt = ids, config.n_prompt = 2;
    config.bottleneck_place = INLAID_BOTTLENECK_MLP, config.bottleneck_activation = INLAID_ACTIVATION_TANH;
    for (i = 0; i < sizeof all / sizeof *all; i++) {
        config.learn = all[i];
        if (all[i] == INLAID_LEARN_IA3) {
            config.targets = targets, config.n_targets = 2;
            config.feedforward = targets + 1, config.n_feedforward = 1;
        }
        OK(inlaid_trainer_new(model, &config, &trainer, &err));
        for (step = 0; step < 4; step++) {
            OK(inlaid_trainer_step(trainer, &one, 1, 1e-2f, &report, &err));
            if (step == 0) first = report.loss;
        }
        CHECK(report.loss < first);
        snprintf(out, sizeof out, "%s/kind-%d", dir, (int)all[i]);
        OK(inlaid_trainer_save(trainer, NULL, out, &err));
        OK(inlaid_adapter_open(model, out, &adapter, &err));
        inlaid_adapter_free(adapter);
        inlaid_trainer_free(trainer);
    }
    config.bottleneck_place = 9;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_new(model, &config, &trainer, &err));
    config.learn = 99;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_trainer_new(model, &config, &trainer, &err));
    CHECK(trainer == NULL);
}

static void rewards(const inlaid_model *model, const char *dir) {
    inlaid_error err;
    inlaid_trainer *trainer = NULL;
    inlaid_train_config learn;
    inlaid_ppo_config config;
    inlaid_ppo_stats stats = {0};
    inlaid_example some[2];
    inlaid_adapter *adapter = NULL;
    const size_t lens[PROMPTS] = {2, 3, 1};
    const float worth[PROMPTS] = {0.5f, 1.0f, 0.25f}, bad[PROMPTS] = {0.5f, 1.0f, INFINITY};
    uint32_t answer[8];
    int32_t progress = INLAID_PPO_MORE;
    size_t n = 0;
    char out[1024];
    inlaid_error_init(&err, sizeof err);
    CHECK(inlaid_train_config_init(&learn, sizeof learn) == INLAID_OK);
    CHECK(inlaid_ppo_config_init(&config, sizeof config) == INLAID_OK);
    learn.learn = INLAID_LEARN_LORA;
    learn.recompute = 2;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_ppo_new(model, &learn, &config, &trainer, &err));
    learn.recompute = 1;
    config.max_tokens = 6;
    stats.struct_size = sizeof stats;
    OK(inlaid_ppo_new(model, &learn, &config, &trainer, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_ppo_advance(trainer, 0, &progress, &err));
    some[0] = example(10, 1, 0), some[1] = example(6, 6, 0);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_ppo_set_mix(trainer, some, 2, &err));
    OK(inlaid_ppo_set_mix(trainer, some, 1, &err));
    OK(inlaid_ppo_begin(trainer, ids, lens, PROMPTS, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_ppo_set_rewards(trainer, worth, PROMPTS, &err));
    while (progress == INLAID_PPO_MORE) OK(inlaid_ppo_advance(trainer, 0, &progress, &err));
    CHECK(progress == INLAID_PPO_REWARDS);
    OK(inlaid_ppo_answer(trainer, 2, answer, 8, &n, &err));
    CHECK(n >= 1 && n <= 6);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_ppo_answer(trainer, 3, answer, 8, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_ppo_set_rewards(trainer, bad, PROMPTS, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_ppo_set_rewards(trainer, worth, 1, &err));
    OK(inlaid_ppo_set_rewards(trainer, worth, PROMPTS, &err));
    while (progress != INLAID_PPO_DONE) OK(inlaid_ppo_advance(trainer, 1000, &progress, &err));
    OK(inlaid_ppo_get_stats(trainer, &stats, &err));
    CHECK(stats.round == 1 && stats.kl == 0 && stats.reward > 0.58 && stats.reward < 0.59 && stats.mix_loss > 0);
    OK(inlaid_ppo_set_mix(trainer, NULL, 0, &err));
    OK(inlaid_trainer_adapter(trainer, &adapter, &err));
    snprintf(out, sizeof out, "%s/adapter", dir);
    OK(inlaid_trainer_save(trainer, NULL, out, &err));
    inlaid_adapter_free(adapter);
    OK(inlaid_adapter_open(model, out, &adapter, &err));
    inlaid_adapter_free(adapter);
    inlaid_trainer_retain(trainer);
    inlaid_trainer_free(trainer);
    inlaid_trainer_free(trainer);
}

void learning(const char *textless) {
    inlaid_engine *engine = NULL;
    inlaid_model *model = NULL;
    char dir[1024];
    open_model(textless, &engine, &model);
    if (!(inlaid_features() & INLAID_FEATURE_TRAIN)) return;
    snprintf(dir, sizeof dir, "%s/learning", textless);
    steps(model, textless, dir);
    kinds(model, dir);
    rewards(model, dir);
    inlaid_model_free(model);
    inlaid_engine_free(engine);
}
