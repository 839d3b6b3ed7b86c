/* What the files of the smoke test share. */
#ifndef SMOKE_H
#define SMOKE_H

#include "check.h"
#include <inlaid.h>

void models(const char *path, const char *textless);
void texts(const char *path, const char *textless);
void sessions(const char *textless);
void answers(const char *path, const char *textless);
void threads(const char *textless);
void batches(const char *path, const char *textless);
void tasks(const char *path, const char *textless, const char *readers);
void adapters(const char *textless);
void learning(const char *textless);

/* An engine of two threads, and a model in it; the caller frees both. */
void open_model(const char *path, inlaid_engine **engine, inlaid_model **model);

#endif
