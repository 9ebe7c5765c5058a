#include "net/timer.h"

static bool timer_before(const sf_timer *a, const sf_timer *b)
{
    return a->due_ns < b->due_ns || (a->due_ns == b->due_ns && a->order < b->order);
}

/* Both are roots; either may be NULL. `prev` of a node is its left sibling, or its parent for the first child. */
static sf_timer *heap_meld(sf_timer *a, sf_timer *b)
{
    if (!a || !b)
        return a ? a : b;
    if (timer_before(b, a)) {
        sf_timer *t = a;

        a = b;
        b = t;
    }
    b->prev = a;
    b->sibling = a->child;
    if (a->child)
        a->child->prev = b;
    a->child = b;
    return a;
}

/* The two passes of a pairing heap: neighbours meet left to right, then all meet right to left. */
static sf_timer *heap_meld_children(sf_timer *first)
{
    sf_timer *pairs = NULL, *root = NULL;

    while (first) {
        sf_timer *a = first, *b = a->sibling, *rest = b ? b->sibling : NULL;

        a->sibling = a->prev = NULL;
        if (b)
            b->sibling = b->prev = NULL;
        a = heap_meld(a, b);
        a->sibling = pairs;
        pairs = a;
        first = rest;
    }
    while (pairs) {
        sf_timer *next = pairs->sibling;

        pairs->sibling = NULL;
        root = heap_meld(root, pairs);
        pairs = next;
    }
    return root;
}

void sf__timer_queue_add(sf_timer_queue *q, sf_timer *t, uint64_t due_ns)
{
    t->due_ns = due_ns;
    t->order = ++q->newest;
    q->first = heap_meld(q->first, t);
}

void sf__timer_queue_remove(sf_timer_queue *q, sf_timer *t)
{
    sf_timer *children = heap_meld_children(t->child);

    if (q->first == t) {
        q->first = children;
    } else {
        if (t->prev->child == t)
            t->prev->child = t->sibling;
        else
            t->prev->sibling = t->sibling;
        if (t->sibling)
            t->sibling->prev = t->prev;
        q->first = heap_meld(q->first, children);
    }
    t->child = t->sibling = t->prev = NULL;
    t->order = 0;
}
