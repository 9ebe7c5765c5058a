/* What is under way on a loop and can be ended early. Each is embedded by its owner, which enters it when it begins and takes
 * it out when it is over. Loop thread only; no memory is needed. */
#ifndef SF_NET_UNDER_WAY_H
#define SF_NET_UNDER_WAY_H

#include <stddef.h>

typedef struct sf_under_way {
    struct sf_under_way *next, *before;  /* NULL: not in a list */
    void (*end)(struct sf_under_way *u); /* may be over when it returns, and gone */
} sf_under_way;

/* Of a list the head is one of them, too. */
static inline void sf__under_way_init(sf_under_way *head)
{
    head->next = head->before = head;
    head->end = NULL;
}

static inline void sf__under_way_enter(sf_under_way *head, sf_under_way *u)
{
    u->next = head;
    u->before = head->before;
    head->before->next = u;
    head->before = u;
}

/* Harmless on a zeroed one. */
static inline void sf__under_way_leave(sf_under_way *u)
{
    if (!u->next)
        return;
    u->before->next = u->next;
    u->next->before = u->before;
    u->next = u->before = NULL;
}

/* Those that are in the list now, and none that enter meanwhile. */
static inline void sf__under_way_end_all(sf_under_way *head)
{
    sf_under_way now;

    sf__under_way_init(&now);
    while (head->next != head) {
        sf_under_way *u = head->next;

        sf__under_way_leave(u);
        sf__under_way_enter(&now, u);
    }
    while (now.next != &now) {
        sf_under_way *u = now.next;

        sf__under_way_leave(u);
        sf__under_way_enter(head, u);
        u->end(u);
    }
}

#endif
