(** T13, whole trajectories: each step's radius takes in the radius before it; the last one encloses the true latent. *)

From Coq Require Import Reals Lra Lia.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space t13.
Open Scope R_scope.

(** [ybar k], [r k]: centre and radius of the ball after k steps; [A k], [a k], [Y k], [Z k]: the step's certificate. *)
Theorem t13_trajectory (V : NormedModule R_AbsRing) (F A : nat -> V -> V) (ybar : nat -> V) (r a Y Z : nat -> R)
  (x : V) (n : nat)
  (HV : complete V)
  (Hx : norm (x [-] ybar O) <= r O)
  (HA_plus : forall k u v, A k (u [+] v) = A k u [+] A k v)
  (HA_scal : forall k c u, A k (c [*] u) = c [*] A k u)
  (HA_injective : forall k u, A k u = zero -> u = zero)
  (HA_norm : forall k v, norm (A k v) <= a k * norm v)
  (Ha : forall k, 0 <= a k)
  (HY : forall k, (k < n)%nat -> norm (A k (F k (ybar (S k)) [-] ybar k)) <= Y k)
  (HZ : forall k u v, (k < n)%nat -> norm (u [-] ybar (S k)) <= r (S k) -> norm (v [-] ybar (S k)) <= r (S k) ->
    norm ((u [-] v) [-] A k (F k u [-] F k v)) <= Z k * norm (u [-] v))
  (HYZ : forall k, (k < n)%nat -> Y k + a k * r k + Z k * r (S k) <= r (S k))
  (HZ1 : forall k, (k < n)%nat -> 0 <= Z k < 1) :
  exists y : nat -> V,
    y O = x /\ (forall k, (k < n)%nat -> F k (y (S k)) = y k) /\
    (forall k, (k <= n)%nat -> norm (y k [-] ybar k) <= r k) /\
    (forall z : nat -> V, z O = x -> (forall k, (k < n)%nat -> F k (z (S k)) = z k) ->
      (forall k, (k <= n)%nat -> norm (z k [-] ybar k) <= r k) -> forall k, (k <= n)%nat -> z k = y k).
Proof.
  induction n as [|n IH].
  - exists (fun _ => x); repeat split.
    + intros k Hk; lia.
    + intros k Hk; replace k with O by lia; exact Hx.
    + intros z Hz _ _ k Hk; replace k with O by lia; exact Hz.
  - destruct IH as (y & H0 & Hstep & Hball & Huniq); auto.
    destruct (t13_inexact V (F n) (A n) (y n) (ybar n) (ybar (S n)) (r (S n)) (r n) (a n) (Y n) (Z n))
      as (w & Hw & Fw & Hwu); auto.
    { exact (HA_injective n). }
    exists (fun k => if Nat.leb k n then y k else w).
    assert (Hin : forall k, (k <= n)%nat -> (if Nat.leb k n then y k else w) = y k).
    { intros k Hk; now rewrite (proj2 (Nat.leb_le k n) Hk). }
    assert (Hlast : (if Nat.leb (S n) n then y (S n) else w) = w).
    { now rewrite (proj2 (Nat.leb_gt (S n) n) (Nat.lt_succ_diag_r n)). }
    split; [rewrite Hin by lia; exact H0|].
    split; [|split].
    + intros k Hk; destruct (Nat.eq_dec k n) as [->|Hne].
      * rewrite Hlast, Hin by lia; exact Fw.
      * rewrite !Hin by lia; apply Hstep; lia.
    + intros k Hk; destruct (Nat.eq_dec k (S n)) as [->|Hne].
      * rewrite Hlast; exact Hw.
      * rewrite Hin by lia; apply Hball; lia.
    + intros z Hz0 Hz Bz.
      assert (E : forall k, (k <= n)%nat -> z k = y k).
      { apply Huniq; [exact Hz0| |]; intros k Hk; [apply Hz|apply Bz]; lia. }
      intros k Hk; destruct (Nat.eq_dec k (S n)) as [->|Hne].
      * rewrite Hlast; apply Hwu; [apply Bz; lia|].
        rewrite Hz by lia; apply E; lia.
      * rewrite Hin by lia; apply E; lia.
Qed.
